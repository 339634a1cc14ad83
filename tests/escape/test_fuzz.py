"""Thousands of specifications that nobody would write: each is refused or becomes a container, and the agent is afterwards what it was."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.container.spec.document import parse_process, parse_resources, parse_spec
from agent.errors import Refused
from innkeeper.client import RpcError
from innkeeper.image import to_proto
from innkeeper.wire import status
from innkeeper.wire.pb import agent_pb2, empty_pb2
from tests.escape.fuzz import Case, documents, mangled, messages
from tests.escape.fuzz_documents import WHOLE, everything
from tests.escape.target import Target
from tests.escape.target_native import Native
from tests.eventually import eventually

COUNT, COUNT_LONG = 10_000, 100_000
LIVE_COUNT, LIVE_LONG = 5000, 50_000
GUEST_COUNT = 100
LOOK_EVERY = 1000
GROWTH_KB = 12 << 10
"""From the first look to any later one, however many specifications are between them: what is kept has a bound."""
LOOKS = 5
"""Times that memory is looked at before it counts as grown."""
PLAIN = 20
"""Ordinary containers before memory is looked at, so that it is not that of the last request of a megabyte."""
SECONDS = 60.0
BASE = settings(database=None, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False)


def test_the_document_to_start_from_is_valid() -> None:
    assert parse_spec(WHOLE).process is not None


def test_no_document_is_more_than_refused(request: pytest.FixtureRequest) -> None:
    count = COUNT_LONG if request.config.getoption("--long") else COUNT

    @settings(BASE, max_examples=count)
    @given(documents(lambda: WHOLE))
    def parse(case: Case) -> None:
        try:
            parse_spec(case.value)
        except Refused as refusal:
            assert refusal.field and refusal.reason
            assert len(str(refusal)) < 10_000

    parse()


@pytest.mark.parametrize("part", ["process", "resources"])
def test_no_part_is_more_than_refused(part: str) -> None:
    """Documents of exec and update."""
    valid = WHOLE["process"] if part == "process" else WHOLE["linux"]["resources"]
    parser = parse_process if part == "process" else parse_resources

    @settings(BASE, max_examples=1000)
    @given(documents(lambda: valid))
    def parse(case: Case) -> None:
        try:
            parser(case.value)
        except Refused as refusal:
            assert refusal.field and refusal.reason

    parse()


@pytest.fixture(scope="module")
def read_only_agent(payload: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Native]:
    """An agent for which this machine is read-only but for the test's own folder: a root path may be any."""
    target = Native(tmp_path_factory.mktemp("fuzz"), payload, read_only=True)
    yield target
    target.close()


class Attempts:
    """Sends specifications, and looks now and then whether the agent still is what it was."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.root = target.make_root("fuzzed")
        (self.root / "link").symlink_to("/etc")
        (self.root / "up").symlink_to("../../../../../..")
        (self.root / "absolute").symlink_to(f"{target.inner(target.canary)}/open")
        (self.root / "loop").symlink_to("loop")
        self.document = everything(target.inner(self.root), target.inner(target.plain / "etc/passwd"))
        self.made = self.refused = 0
        target.settle()
        self.send(agent_pb2.CreateContainerRequest(OCI=to_proto(self.document)), start=True)
        assert self.made == 1, "the specification to start from is refused"
        self.before = target.holdings()
        self.resident = 0

    def send(self, request: agent_pb2.CreateContainerRequest, start: bool) -> None:
        """Create, perhaps start, remove."""
        id = self.target.new_id()
        request.container_id = request.exec_id = id
        self.send_bytes(id, request, start)

    def send_bytes(self, id: str, request: Any, start: bool) -> None:
        """`request` is anything that can be serialised."""
        agent = self.target.agent
        try:
            agent.client.call("grpc.AgentService", "CreateContainer", request, empty_pb2.Empty, SECONDS)
        except RpcError as refusal:
            assert not refusal.lost and refusal.code != status.DEADLINE_EXCEEDED, refusal
            assert refusal.message
            self.refused += 1
        else:
            self.made += 1
            if start:
                self._start(id)
            self._remove(id)
        if (self.made + self.refused) % LOOK_EVERY == 0:
            self.look()

    def _start(self, id: str) -> None:
        try:
            self.target.agent.start_container(id)
        except RpcError as refusal:
            assert not refusal.lost and refusal.code != status.DEADLINE_EXCEEDED, refusal

    def _remove(self, id: str) -> None:
        """By its own id; a request whose bytes were changed may have made one of another."""
        for other in {id, *[container.id for container in self.target.agent.list_containers()]} - {"observer"}:
            try:
                self.target.agent.remove_container(other)
            except RpcError as refusal:
                assert other != id or refusal.code == status.NOT_FOUND, refusal

    def look(self) -> None:
        """Nothing stays, and memory has not grown since the first thousand."""
        assert self.target.agent.check(SECONDS) == 1
        eventually(lambda: not self.target.holdings() - self.before, lambda: str(self.target.holdings() - self.before), 10)
        # The heap is trimmed in its own time: it goes up and down by megabytes, and what stays is meant.
        for _ in range(LOOKS):
            for _ in range(PLAIN):
                self.target.run(self.target.document("identity"))
            resident = self.target.resident()
            self.resident = self.resident or resident
            if resident - self.resident < GROWTH_KB:
                return
        raise AssertionError(f"{self.resident} KB resident have become {resident}")


class Raw:
    """Bytes in the place of a message."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def SerializeToString(self) -> bytes:
        return self.data


def attack(target: Target, count: int) -> None:
    """`count` specifications; a tenth of them as changed bytes."""
    attempts = Attempts(target)
    valid = agent_pb2.CreateContainerRequest(OCI=to_proto(attempts.document))

    @settings(BASE, max_examples=count * 9 // 10)
    @given(messages(lambda: valid.OCI), st.booleans())
    def send(case: Case, start: bool) -> None:
        attempts.send(agent_pb2.CreateContainerRequest(OCI=case.value), start)

    valid.container_id = valid.exec_id = "mangled"

    @settings(BASE, max_examples=count // 10)
    @given(mangled(valid.SerializeToString()))
    def send_mangled(data: bytes) -> None:
        attempts.send_bytes(valid.container_id, Raw(data), False)

    send()
    send_mangled()
    attempts.look()
    assert attempts.made > count // 50, "hardly anything is valid enough to get anywhere"
    assert attempts.refused > count // 50
    assert "Traceback" not in target.log()


@pytest.mark.root
@pytest.mark.needs("root", "cgroup2")
def test_whatever_is_sent_the_agent_is_what_it_was(read_only_agent: Native, request: pytest.FixtureRequest) -> None:
    attack(read_only_agent, LIVE_LONG if request.config.getoption("--long") else LIVE_COUNT)
    assert os.listdir(read_only_agent.canary / "open") == ["inner"]


@pytest.mark.vm
def test_whatever_is_sent_to_a_guest_it_is_what_it_was(inside: Target) -> None:
    attack(inside, GUEST_COUNT)
