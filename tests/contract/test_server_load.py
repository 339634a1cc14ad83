"""Many clients, long use, no descriptors left, and the end."""

import resource
from contextlib import ExitStack
from pathlib import Path

from innkeeper.wire import frames, status
from innkeeper.wire.pb import agent_pb2
from tests.contract.agent_process import AgentProcess, running_agent
from tests.contract.wire_helpers import header, request_frame

AGENT = "grpc.AgentService"
CONNECTIONS = 200
NOISE = 1 << 20
"""Bytes by which a process's memory moves without growing."""


def test_two_hundred_connections_at_once(agent: AgentProcess) -> None:
    agent.wait_for_rest()
    with ExitStack() as stack:
        clients = [stack.enter_context(agent.raw()) for _ in range(CONNECTIONS)]
        for raw in clients:
            raw.send(request_frame(1, AGENT, "GetOOMEvent"), request_frame(3, AGENT, "GetGuestDetails"), request_frame(5))
        for raw in clients:
            assert sorted(raw.read_answers(2)) == [(3, status.OK, ""), (5, status.OK, "")]
        assert agent.descriptors() == agent.at_rest + CONNECTIONS
        for raw in reversed(clients):
            raw.check(7)
    agent.wait_for_rest()


def a_round(agent: AgentProcess, number: int) -> None:
    """One connection with a bit of everything."""
    stop = agent_pb2.StartContainerRequest(container_id="none").SerializeToString()
    with agent.raw() as raw:
        raw.send(
            request_frame(1),
            request_frame(3, AGENT, "GetOOMEvent", nano=1 + number % 2 * 60_000_000_000),
            request_frame(5, AGENT, "StartContainer", stop),
            request_frame(7, AGENT, "StartContainer", b"\xff"),
            request_frame(9, AGENT, f"NoSuchMethod{number}"),
            request_frame(11, AGENT, "GetGuestDetails", nano=60_000_000_000),
            request_frame(13, f"service{number}", flags=frames.REMOTE_OPEN),
            frames.encode(15, frames.REQUEST, 0, b"\xff"),
            header(frames.MAX_PAYLOAD + 1, 17, frames.REQUEST) + bytes(number % 1000),
        )
        raw.read_answers(8)


def test_memory_stays_flat(agent: AgentProcess) -> None:
    for number in range(1500):
        a_round(agent, number)
    before = agent.resident()
    for number in range(1500):
        a_round(agent, number)
    assert agent.resident() - before < NOISE
    agent.wait_for_rest()


def test_deadlines_of_calls_that_are_over_take_no_memory(agent: AgentProcess) -> None:
    call = request_frame(1, AGENT, "GetGuestDetails", nano=3_600_000_000_000)
    with agent.raw() as raw:
        for _ in range(500):
            raw.send(call)
            raw.read_frame()
        before = agent.resident()
        for _ in range(8000):
            raw.send(call)
            raw.read_frame()
    assert agent.resident() - before < NOISE


def test_no_descriptor_left(tmp_path: Path) -> None:
    """Clients that find no room wait; those that are in are served; when one leaves the next comes in."""
    with running_agent(tmp_path) as agent, ExitStack() as stack:
        room = 8
        soft = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (agent.at_rest + room, soft[1]))
        inside = [stack.enter_context(agent.raw()) for _ in range(room)]
        for raw in inside:
            raw.check(1)
        waiting = [stack.enter_context(agent.raw()) for _ in range(3)]
        for raw in waiting:
            raw.send(request_frame(1))
        for stream in range(3, 1003, 2):
            inside[0].check(stream)
        assert 0 < agent.log().count("accept: ") < 400, "a try in each round of the loop"
        for raw in inside[1:4]:
            raw.sock.close()
        for raw in waiting:
            assert raw.read_answer() == (1, status.OK, "")
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, soft)


def test_the_agent_ends_with_its_sandbox(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent, agent.raw() as other:
        other.send(request_frame(1, AGENT, "GetOOMEvent"))
        other.check(3)
        assert agent.end_sandbox() == 0
        assert other.read_answer() == (1, status.INTERNAL, "")
        assert other.sock.recv(1) == b""
