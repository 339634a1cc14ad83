"""Malformed and hostile requests on every method: each is answered, Check always, and the agent is afterwards what it was before.

The agent runs as root in a jail (tests/root/jail.py): what such requests may reach is a read-only file system and nothing of the machine.
"""

import os
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from innkeeper.client import RpcError
from innkeeper.image.proto import process_to_proto, to_proto
from innkeeper.wire import status
from innkeeper.wire.pb import agent_pb2 as pb
from innkeeper.wire.pb import guest_pb2, health_pb2
from innkeeper.wire.pb.empty_pb2 import Empty
from tests.contract.agent_process import AgentProcess, Raw, running_agent
from tests.contract.wire_helpers import request_frame
from tests.eventually import eventually
from tests.needs import needs
from tests.paths import ROOT
from tests.root.agent.hostile import POOLS, STRANGE, Maker
from tests.root.agent_helpers import shim_document
from tests.root.container_helpers import PATH

pytestmark = [pytest.mark.root, needs("cgroup2", "busybox", "module:prctl", "module:pyseccomp")]

BATCH = 50
BATCHES = 240
"""Times BATCH: more than 10,000 requests."""
WARM_UP = 40
NANO = 100_000_000
"""A request's deadline: most that would wait are given up soon."""
GROWTH_LIMIT = 6 << 20
"""Bytes between the end of the warm-up and the end: the allocator's own unrest. Anything that grew with each request would show more."""
ENDS_THE_AGENT = {"DestroySandbox", "PowerOff"}
SERVICES = {**pb.SERVICES, **guest_pb2.SERVICES, **health_pb2.SERVICES}
STREAMING = {"Attach", "Events"}
"""By gRPC alone: the gateway makes them of others."""
METHODS = [
    (service, method)
    for service, methods in SERVICES.items()
    for method in methods
    if method not in ENDS_THE_AGENT and method not in STREAMING
]
CODES = {
    *(status.OK, status.INVALID_ARGUMENT, status.DEADLINE_EXCEEDED, status.NOT_FOUND, status.ALREADY_EXISTS, status.PERMISSION_DENIED),
    *(status.RESOURCE_EXHAUSTED, status.FAILED_PRECONDITION, status.UNIMPLEMENTED, status.INTERNAL),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, container_root: Path) -> Path:
    made = tmp_path_factory.mktemp("jail")
    (made / "file").write_text("content")
    shutil.copytree(container_root, made / "rootfs", symlinks=True)
    return made


@pytest.fixture(scope="module")
def agent(folder: Path) -> Iterator[AgentProcess]:
    command = [sys.executable, str(ROOT / "tests/root/jail.py"), str(folder), sys.executable, "-m", "agent"]
    with running_agent(folder, command) as process:
        yield process


@pytest.fixture(scope="module")
def templates(folder: Path) -> dict[str, Any]:
    """Requests that are in order, to be spoilt."""
    spec = to_proto(shim_document(folder / "rootfs", "sh", "-c", "true"))
    process = process_to_proto({"args": ["true"], "env": [PATH], "cwd": "/", "user": {"uid": 0, "gid": 0}})
    shm = pb.Storage(driver="ephemeral", source="shm", fstype="tmpfs", mount_point=f"{folder}/m", options=["mode=1777", "size=65536"])
    return {
        "CreateSandbox": pb.CreateSandboxRequest(sandbox_id="pod", hostname="box", dns=["nameserver 10.0.0.1"], storages=[shm]),
        "CreateContainer": pb.CreateContainerRequest(container_id="c1", exec_id="c1", OCI=spec, storages=[shm]),
        "StartContainer": pb.StartContainerRequest(container_id="c1"),
        "ExecProcess": pb.ExecProcessRequest(container_id="c1", exec_id="e1", process=process),
        "RemoveContainer": pb.RemoveContainerRequest(container_id="c1"),
        "SignalProcess": pb.SignalProcessRequest(container_id="c1", signal=9),
        "WriteStdin": pb.WriteStreamRequest(container_id="c1", exec_id="c1", data=b"exit\n"),
        "ReadStdout": pb.ReadStreamRequest(container_id="c1", exec_id="c1", len=100),
        "CopyFile": pb.CopyFileRequest(path="/run/kata-containers/shared/containers/f", file_size=3, file_mode=0o100644, data=b"abc"),
    }


class Storm:
    """Sends batches and looks at each answer."""

    def __init__(self, agent: AgentProcess, folder: Path, templates: dict[str, Any]) -> None:
        self.agent = agent
        self.folder = folder
        self.templates = templates
        self.codes: Counter[int] = Counter()
        self.methods: Counter[str] = Counter()

    def batch(self, seed: int) -> None:
        """BATCH requests of one seed at once, a Check after them; every one is answered, once."""
        chance = random.Random(seed)
        maker = Maker(chance, str(self.folder))
        sent: dict[int, tuple[str, bool]] = {}
        with self.agent.raw() as raw:
            frames = []
            for number in range(BATCH):
                service, method = chance.choice(METHODS)
                kind = SERVICES[service][method][0]
                payload = maker.payload(kind, self.templates.get(method))
                stream = 2 * number + 1
                sent[stream] = method, _decodes(kind, payload)
                frames.append(request_frame(stream, service, method, payload, nano=NANO))
            check = 2 * BATCH + 1
            raw.send(*frames, request_frame(check))
            self._collect(raw, sent, check)

    def _collect(self, raw: Raw, sent: dict[int, tuple[str, bool]], check: int) -> None:
        waiting = {*sent, check}
        while waiting:
            stream, code, message = raw.read_answer()
            assert stream in waiting, "answered twice, or never asked"
            waiting.discard(stream)
            method, decodes = sent.get(stream, ("Check", True))
            self.codes[code] += 1
            self.methods[method] += 1
            assert code in CODES, (method, code, message)
            if not decodes and method not in ("Check", "Version"):
                assert code in (status.INVALID_ARGUMENT, status.DEADLINE_EXCEEDED, status.UNIMPLEMENTED), (method, code, message)
            if stream == check:
                assert code == status.OK


def _decodes(kind: Any, payload: bytes) -> bool:
    try:
        kind.FromString(payload)
    except DecodeError:
        return False
    return True


def test_hostile_requests(agent: AgentProcess, folder: Path, templates: dict[str, Any]) -> None:
    storm = Storm(agent, folder, templates)
    eventually(lambda: _descriptors(agent, folder)["pipe:[N]"] <= 2)
    before = _descriptors(agent, folder)
    resident: list[int] = []

    @given(st.integers(0, 1 << 62))
    @settings(max_examples=BATCHES, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None)
    def many(seed: int) -> None:
        storm.batch(seed)
        if storm.methods["Check"] >= WARM_UP and not resident:
            resident.append(agent.resident())

    many()
    assert sum(storm.codes.values()) >= 10_000
    assert all(storm.methods[method] for _, method in METHODS), storm.methods
    assert storm.codes[status.OK] > 0
    _clean(agent)
    eventually(
        lambda: not _descriptors(agent, folder) - before,
        lambda: f"descriptors that stay open: {_descriptors(agent, folder) - before}",
        seconds=60,
    )
    assert _open_in_folder(agent, folder) == 2 * _mounts(agent, folder)
    growth = agent.resident() - resident[0]
    assert growth < GROWTH_LIMIT, f"{growth} bytes more than after the warm-up"
    assert "Traceback" not in agent.log(), agent.log()[-5000:]


def _open_in_folder(agent: AgentProcess, folder: Path) -> int:
    """Descriptors below the folder, beside the agent's log: a storage that stays until the sandbox's end is held by two."""
    places = [os.readlink(entry) for entry in Path(f"/proc/{agent.pid}/fd").iterdir()]
    return sum(place.startswith(str(folder)) and not place.endswith(".log") for place in places)


def _mounts(agent: AgentProcess, folder: Path) -> int:
    lines = Path(f"/proc/{agent.pid}/mountinfo").read_text().splitlines()
    return sum(line.split()[4].startswith(f"{folder}/") for line in lines)


def _descriptors(agent: AgentProcess, folder: Path) -> Counter[str]:
    """Return what is open, counted by kind of file. What is kept by design is left out: programs, handles, `_open_in_folder` places.

    The agent sees the end of a connection a moment after its client closed it, so this falls to its value.
    """
    kinds: Counter[str] = Counter()
    for entry in Path(f"/proc/{agent.pid}/fd").iterdir():
        try:
            place = os.readlink(entry)
        except FileNotFoundError:
            continue
        if not place.startswith(str(folder)):
            kinds[re.sub(r"\d+", "N", place)] += 1
    for kept in ("anon_inode:bpf-prog", "/"):
        del kinds[kept]
    return kinds


def _clean(agent: AgentProcess) -> None:
    """Remove what the requests have left on purpose: containers and shells."""
    with agent.client() as client:
        listed = client.call("innkeeper.v1.Guest", "ListContainers", Empty(), guest_pb2.ListContainersResponse, 60)
        for container in listed.containers:
            client.call("grpc.AgentService", "RemoveContainer", pb.RemoveContainerRequest(container_id=container.id), Empty, 60)
        for name in {*POOLS["exec_id"], *STRANGE}:
            try:
                client.call(
                    "grpc.AgentService", "SignalProcess", pb.SignalProcessRequest(container_id="guest", exec_id=name, signal=9), Empty, 60
                )
                waiting = pb.WaitProcessRequest(container_id="guest", exec_id=name)
                client.call("grpc.AgentService", "WaitProcess", waiting, pb.WaitProcessResponse, 60)
            except RpcError as error:
                assert error.code == status.NOT_FOUND, error


@pytest.mark.parametrize(("service", "method"), METHODS, ids=[method for _, method in METHODS])
def test_bytes_that_are_no_message(agent: AgentProcess, service: str, method: str) -> None:
    """Refused as such by every method but those that look at no request."""
    with agent.raw() as raw:
        raw.send(request_frame(1, service, method, b"\xff" * 20, nano=NANO))
        _, code, message = raw.read_answer()
    if method in ("Check", "Version"):
        assert code == status.OK
    elif method.startswith("MemAgent"):
        assert code == status.UNIMPLEMENTED
    else:
        assert (code, "undecodable request" in message) == (status.INVALID_ARGUMENT, True)


def test_the_agent_ends_as_it_should(agent: AgentProcess) -> None:
    """After all that: the sandbox's end is the agent's, and nothing of it is left."""
    pid = agent.pid
    assert agent.end_sandbox() == 0
    assert not Path(f"/proc/{pid}").exists()
    assert [name for name in os.listdir("/sys/fs/cgroup") if name == f"innkeeper-agent-{pid}"] == []
