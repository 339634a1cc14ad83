"""Containers that fork, eat, flood and hold on: they are held, the agent goes on answering, and they can be removed."""

import os
import resource
import time
from pathlib import Path

import pytest

from innkeeper.client import Agent, RpcError, connect
from innkeeper.image import to_proto
from innkeeper.wire.pb import agent_pb2, oci_pb2
from tests.escape.documents import ROOT, USER, USERNS
from tests.escape.target import PATIENCE, READ, Target
from tests.escape.target_guest import Guest
from tests.escape.target_native import Native
from tests.eventually import pause

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]

CHECK_SECONDS = 10.0
"""How long a Check may take before the agent counts as stuck: far more than it takes."""


@pytest.mark.escape("E47")
@pytest.mark.vm
def test_a_fork_bomb_is_held_by_its_limit(inside: Guest) -> None:
    """Where the hierarchy has the controller: in the inside."""
    doc = inside.document("bomb")
    doc["linux"]["resources"] = {"pids": {"limit": 40}}
    with inside.running(doc) as id:
        for _ in range(5):
            assert inside.agent.check(CHECK_SECONDS) == 1
        assert inside.agent.stats_container(id).cgroup_stats.pids_stats.current == 40
    report = inside.run(doc)
    assert report.of("fork") == {"": "EAGAIN"}
    assert int(report.values("fork")[""]) < 40


@pytest.mark.escape("E47")
@pytest.mark.parametrize("who", [ROOT, USERNS, USER])
def test_the_agent_answers_beside_a_fork_bomb(target: Target, who: str) -> None:
    """A few hundred processes without a limit of their group, then removed at once."""
    with target.running(target.document("bomb", "60" if target.slow else "400", who=who)):
        for _ in range(10):
            assert target.agent.check(CHECK_SECONDS) == 1


@pytest.mark.escape("E47")
def test_a_limit_that_the_hierarchy_lacks_is_refused_by_name(target: Target) -> None:
    doc = target.document("identity")
    doc["linux"]["resources"] = {"pids": {"limit": 10}, "memory": {"limit": 64 << 20}}
    report = target.attempt(doc)
    if isinstance(report, RpcError):
        assert "linux.resources.memory.limit" in report.message or "linux.resources.pids.limit" in report.message
        assert not target.slow, "the guest has every controller"
    else:
        assert report.status == 0


@pytest.mark.escape("E47", "E50")
@pytest.mark.parametrize("who", [ROOT, USERNS, USER])
def test_a_container_that_forks_for_ever_is_removed(target: Target, who: str) -> None:
    """The process to kill is always gone already; the group's kill is not outrun."""
    for _ in range(target.rounds(10) if target.slow else 5):
        with target.running(target.document("fork-for-ever", who=who)):
            assert target.agent.check(CHECK_SECONDS) == 1


@pytest.mark.escape("E01", "E50")
def test_a_container_that_traces_whoever_joins_is_removed(target: Target) -> None:
    """A process that has ended while it is traced cannot be reaped. The agent does not wait for it, and goes on when the tracer is gone."""
    id = target.create(target.document("trace-for-ever"))
    try:
        target.agent.start_container(id)
        target.agent.read_stdout(id, id, READ)
        for _ in range(4):
            target.start_exec(id, "fds")
        pause(0.5 if target.slow else 0.1, "the joiners are traced and end")
        assert target.agent.check(CHECK_SECONDS) == 1
    finally:
        target.agent.remove_container(id)


@pytest.mark.escape("E48")
@pytest.mark.vm
@pytest.mark.parametrize("kibibytes", [64, 512, 1024, 2048])
def test_too_little_memory_is_an_error_and_no_hang(inside: Guest, kibibytes: int) -> None:
    doc = inside.document("identity")
    doc["linux"]["resources"] = {"memory": {"limit": kibibytes << 10}}
    report = inside.attempt(doc)
    assert inside.agent.check(CHECK_SECONDS) == 1
    if isinstance(report, RpcError):
        assert report.message


@pytest.mark.escape("E48")
@pytest.mark.vm
def test_an_allocation_over_the_limit_ends_the_container_alone(inside: Guest) -> None:
    doc = inside.document("eat", "64")
    doc["linux"]["resources"] = {"memory": {"limit": 24 << 20}}
    report = inside.run(doc)
    assert (report.status, report.answers) == (137, [])
    assert inside.agent.get_oom_event().startswith("attack-")
    assert inside.agent.check(CHECK_SECONDS) == 1


@pytest.mark.escape("E49")
@pytest.mark.parametrize("who", [ROOT, USER])
def test_output_that_nobody_reads_stays_in_the_pipe(target: Target, who: str, request: pytest.FixtureRequest) -> None:
    doc = target.document("flood", who=who)
    before = target.resident()
    with target.running(doc) as id:
        exec_id = target.start_exec(id, "flood")
        end = time.monotonic() + (60 if request.config.getoption("--long") else 1)
        while time.monotonic() < end:
            assert target.agent.check(CHECK_SECONDS) == 1
            pause(0.05, "the output is to fill whatever keeps it")
        assert target.resident() - before < 4 << 10
        target.agent.signal_process(id, exec_id, 9)
        assert target.agent.wait_process(id, exec_id, PATIENCE) == 137


@pytest.mark.escape("E49")
def test_a_reader_that_goes_away_leaves_nothing(target: Target) -> None:
    """A call that waits for output is given up with its connection, and what comes later goes to the next reader."""
    with target.running(target.document("hold")) as id:
        request = agent_pb2.ReadStreamRequest(container_id=id, exec_id=id, len=1)
        for _ in range(5):
            with connect(target.address, PATIENCE) as client, pytest.raises(RpcError, match=r"timeout|no answer"):
                client.call("grpc.AgentService", "ReadStdout", request, agent_pb2.ReadStreamResponse, 0.3)
        target.agent.close_stdin(id, id)
        assert target.agent.read_stdout(id, id, READ) == b""


@pytest.mark.escape("E47")
@pytest.mark.parametrize("spare", range(1, 26, 3))
def test_an_agent_short_of_descriptors_refuses_and_recovers(here: Native, spare: int) -> None:
    """So many are left when others begin: what cannot be made is refused, what runs goes on, and all is well when there are more again."""
    with here.running(here.document("hold")) as id:
        limit = resource.prlimit(here.pid, resource.RLIMIT_NOFILE)
        used = len(os.listdir(f"/proc/{here.pid}/fd"))
        resource.prlimit(here.pid, resource.RLIMIT_NOFILE, (used + spare, limit[1]))
        refused = 0
        try:
            for _ in range(8):
                refused += isinstance(here.attempt(here.document("identity")), RpcError)
                try:
                    here.exec(id, "identity")
                except RpcError as refusal:
                    assert not refusal.lost
                assert here.agent.check(CHECK_SECONDS) == 1
        finally:
            resource.prlimit(here.pid, resource.RLIMIT_NOFILE, limit)
        assert refused in (0, 8), "the first is like the others: nothing is used up"
        assert here.exec(id, "identity").status == 0
        assert here.run(here.document("identity")).status == 0


@pytest.mark.escape("E48")
@pytest.mark.parametrize("kibibytes", [0, 64, 1024, 8192, 32768])
def test_an_agent_short_of_memory_refuses_and_recovers(here: Native, kibibytes: int) -> None:
    """A connection may be given up for a request that there is no room for; the agent is not, and what it had begun is undone."""
    doc = here.document("identity")
    doc["annotations"] = {f"key-{number}": "x" * 1000 for number in range(3000)}
    limit = resource.prlimit(here.pid, resource.RLIMIT_AS)
    resource.prlimit(here.pid, resource.RLIMIT_AS, (_address_space(here.pid) + (kibibytes << 10), limit[1]))
    try:
        for _ in range(5):
            with connect(here.address, PATIENCE) as client:
                _create_and_remove(Agent(client), here.new_id(), to_proto(doc))
    finally:
        resource.prlimit(here.pid, resource.RLIMIT_AS, limit)
    for container in here.agent.list_containers():
        here.agent.remove_container(container.id)
    assert here.run(here.document("identity")).status == 0


def _create_and_remove(agent: Agent, id: str, spec: oci_pb2.Spec) -> None:
    try:
        agent.create_container(agent_pb2.CreateContainerRequest(container_id=id, exec_id=id, OCI=spec))
        agent.remove_container(id)
    except RpcError as refusal:
        assert refusal.message


def _address_space(pid: int) -> int:
    """Bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmSize:"))
