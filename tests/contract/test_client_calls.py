"""The host's client: calls from many threads, answers late or never, connections that end, time limits."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from innkeeper.client import Agent, Client, RpcError
from innkeeper.wire import frames, status
from innkeeper.wire.envelope import Response
from innkeeper.wire.pb import agent_pb2, empty_pb2, health_pb2
from tests.contract.agent_process import PATIENCE, AgentProcess
from tests.contract.fake_agent import FakeAgent, fake_agent
from tests.contract.wire_helpers import header

AGENT = "grpc.AgentService"


@contextmanager
def client_and_agent() -> Iterator[tuple[Client, FakeAgent]]:
    with fake_agent() as agent, Client(agent.client_end) as client:
        yield client, agent


def echo(client: Client, text: str, timeout: float | None = PATIENCE) -> str:
    """A call that comes back with the data it took along, from an agent that echoes."""
    request = agent_pb2.OOMEvent(container_id=text)
    return str(client.call(AGENT, "Echo", request, agent_pb2.OOMEvent, timeout).container_id)


@contextmanager
def in_thread(work: Callable[[], object]) -> Iterator["Future[object]"]:
    """`work` in a thread; its result, once asked for, within PATIENCE."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(work)


def error_of(call: Callable[[], object]) -> RpcError:
    with pytest.raises(RpcError) as caught:
        call()
    return caught.value


def test_a_call_and_its_answer() -> None:
    with client_and_agent() as (client, agent), in_thread(lambda: echo(client, "héllo", 30)) as future:
        call = agent.next_call()
        assert (call.request.service, call.request.method, call.streaming) == (AGENT, "Echo", False)
        assert call.request.timeout_nano == 30_000_000_000
        agent.answer(call, Response(payload=call.request.payload))
        assert future.result(PATIENCE) == "héllo"


def test_no_time_limit_says_none() -> None:
    with client_and_agent() as (client, agent), in_thread(lambda: echo(client, "x", None)) as future:
        call = agent.next_call()
        assert call.request.timeout_nano == 0
        agent.answer(call, Response(payload=call.request.payload))
        assert future.result(PATIENCE) == "x"


@pytest.mark.parametrize(("timeout", "nano"), [(0, 1), (1e-12, 1), (1e12, (1 << 63) - 1)])
def test_time_limits_at_the_edges(timeout: float, nano: int) -> None:
    with client_and_agent() as (client, agent), in_thread(lambda: error_of(lambda: echo(client, "x", timeout))) as future:
        call = agent.next_call()
        assert call.request.timeout_nano == nano
        agent.answer(call, Response(status.DEADLINE_EXCEEDED, "timeout"))
        assert "DEADLINE_EXCEEDED: " in str(future.result(PATIENCE))


def test_an_error_status_is_raised() -> None:
    with client_and_agent() as (client, agent), in_thread(lambda: error_of(lambda: echo(client, "x"))) as future:
        agent.answer(agent.next_call(), Response(status.NOT_FOUND, "nobody there", b"\xff"))
        error = future.result(PATIENCE)
    assert isinstance(error, RpcError)
    assert (error.code, error.message, str(error), error.lost) == (5, "nobody there", "NOT_FOUND: nobody there", False)


def test_an_unknown_status_keeps_its_number() -> None:
    with client_and_agent() as (client, agent), in_thread(lambda: error_of(lambda: echo(client, "x"))) as future:
        agent.answer(agent.next_call(), Response(77, "?"))
        assert str(future.result(PATIENCE)) == "77: ?"


def test_an_answer_that_cannot_be_decoded_fails_its_call() -> None:
    with client_and_agent() as (client, agent):
        with in_thread(lambda: error_of(lambda: echo(client, "x"))) as future:
            agent.answer(agent.next_call(), Response(payload=b"\xff"))
            error = future.result(PATIENCE)
        assert isinstance(error, RpcError)
        assert error.code == status.INTERNAL
        assert "undecodable response" in error.message
        with in_thread(lambda: echo(client, "next")) as future:
            agent.echo(1)
            assert future.result(PATIENCE) == "next"


def test_calls_from_many_threads_get_their_own_answers() -> None:
    count, threads = 400, 16
    with client_and_agent() as (client, agent), ThreadPoolExecutor(threads) as pool, in_thread(lambda: agent.echo(count)) as done:
        told = list(pool.map(lambda number: echo(client, f"number {number}"), range(count)))
        done.result(PATIENCE)
    assert told == [f"number {number}" for number in range(count)]


def test_answers_in_reverse() -> None:
    count = 50
    with client_and_agent() as (client, agent), ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(echo, client, str(number)) for number in range(count)]
        calls = [agent.next_call() for _ in range(count)]
        assert [call.stream for call in calls] == list(range(1, 2 * count, 2))
        for call in reversed(calls):
            agent.answer(call, Response(payload=call.request.payload))
        assert [future.result(PATIENCE) for future in futures] == [str(number) for number in range(count)]


def test_calls_of_one_thread_are_in_flight_together() -> None:
    with client_and_agent() as (client, agent):
        started = [
            client.start(AGENT, "Echo", agent_pb2.OOMEvent(container_id=text), agent_pb2.OOMEvent, PATIENCE)
            for text in ("one", "two", "three")
        ]
        calls = [agent.next_call() for _ in started]
        for call in reversed(calls[1:]):
            agent.answer(call, Response(payload=call.request.payload))
        assert [str(pending.result().container_id) for pending in started[1:]] == ["two", "three"]
        agent.answer(calls[0], Response(status.NOT_FOUND, "no one"))
        assert "no one" in str(error_of(started[0].result))


@pytest.mark.parametrize("code", [status.OK, status.ALREADY_EXISTS])
def test_sandbox_and_files_in_one_round_trip(code: int) -> None:
    """The sandbox's error comes first, whichever answer did."""
    files = [agent_pb2.CopyFileRequest(path=path) for path in ("/a", "/b")]
    sandbox = agent_pb2.CreateSandboxRequest(sandbox_id="one")

    with client_and_agent() as (client, agent):

        def work() -> None:
            Agent(client, PATIENCE).create_sandbox_with_files(sandbox, files)

        with in_thread(work if code == status.OK else lambda: str(error_of(work))) as future:
            calls = [agent.next_call() for _ in range(3)]
            assert [call.request.method for call in calls] == ["CreateSandbox", "CopyFile", "CopyFile"]
            for call in reversed(calls):
                agent.answer(call, Response(code, "there is one" if call is calls[0] else "another"))
            assert future.result(PATIENCE) == (None if code == status.OK else "ALREADY_EXISTS: there is one")


def test_an_answer_after_the_time_limit_is_dropped() -> None:
    with client_and_agent() as (client, agent):
        error = error_of(lambda: echo(client, "slow", 0.01))
        assert (error.code, error.lost) == (status.DEADLINE_EXCEEDED, False)
        late = agent.next_call()
        with in_thread(lambda: echo(client, "next")) as future:
            call = agent.next_call()
            agent.answer(late, Response(payload=late.request.payload))
            agent.answer(call, Response(payload=call.request.payload))
            assert future.result(PATIENCE) == "next"
        assert client._calls == {}


def test_the_agents_own_deadline_answer_comes_through() -> None:
    with client_and_agent() as (client, agent), in_thread(lambda: error_of(lambda: echo(client, "x", 0.01))) as future:
        agent.answer(agent.next_call(), Response(status.DEADLINE_EXCEEDED, "timeout"))
        assert "DEADLINE_EXCEEDED: " in str(future.result(PATIENCE))


def test_an_agent_that_reads_nothing_does_not_hold_a_caller_past_its_limit() -> None:
    """The frame that is stuck half-way is finished by the next caller, once the agent reads again."""
    big = "x" * (3 << 20)
    with client_and_agent() as (client, agent):
        for _ in range(2):
            assert error_of(lambda: echo(client, big, 0.05)).code == status.DEADLINE_EXCEEDED
        with in_thread(lambda: echo(client, "after")) as future:
            seen = [agent.next_call().request.payload for _ in range(2)]
            agent.echo(1)
            assert future.result(PATIENCE) == "after"
        assert [len(payload) for payload in seen] == [len(big) + 5] * 2


def test_callers_that_wait_for_the_socket_keep_their_limits_too() -> None:
    big = "x" * (3 << 20)
    with client_and_agent() as (client, agent), in_thread(lambda: echo(client, big)) as stuck:
        while not client._unsent:  # until the first caller holds the socket
            threading.Event().wait(0.001)
        assert error_of(lambda: echo(client, "behind", 0.01)).code == status.DEADLINE_EXCEEDED
        call = agent.next_call()
        agent.answer(call, Response(payload=call.request.payload))
        assert stuck.result(PATIENCE) == big


def test_a_request_that_is_too_long_is_refused_here() -> None:
    with client_and_agent() as (client, agent):
        error = error_of(lambda: echo(client, "x" * (4 << 20)))
        assert error.code == status.RESOURCE_EXHAUSTED
        with in_thread(lambda: echo(client, "next")) as future:
            agent.echo(1)
            assert future.result(PATIENCE) == "next"


def test_an_answer_that_is_too_long_fails_its_call_alone() -> None:
    with client_and_agent() as (client, agent), ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: error_of(lambda: echo(client, "first")))
        one = agent.next_call()
        second = pool.submit(echo, client, "second")
        two = agent.next_call()
        agent.sock.sendall(header(frames.MAX_PAYLOAD + 1, one.stream, frames.RESPONSE) + bytes(frames.MAX_PAYLOAD + 1))
        agent.answer(two, Response(payload=two.request.payload))
        assert first.result(PATIENCE).code == status.RESOURCE_EXHAUSTED
        assert second.result(PATIENCE) == "second"


# connections that end


def reason_of_loss(error: object) -> str:
    """The text of an error that says the connection is gone."""
    assert isinstance(error, RpcError)
    assert (error.code, error.lost) == (status.UNAVAILABLE, True)
    return error.message


@pytest.mark.parametrize("half", [b"", b"\x00\x00"])
def test_an_agent_that_goes_away_ends_every_call(half: bytes) -> None:
    count = 20
    with client_and_agent() as (client, agent), ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(lambda: error_of(lambda: echo(client, "x", None))) for _ in range(count)]
        for _ in range(count):
            agent.next_call()
        agent.sock.sendall(half)
        agent.sock.close()
        assert {reason_of_loss(future.result(PATIENCE)) for future in futures} == {"Echo: the agent closed the connection"}
        assert reason_of_loss(error_of(lambda: echo(client, "x"))) == "Echo: the agent closed the connection"


def test_closing_ends_every_call_and_says_who_closed() -> None:
    with client_and_agent() as (client, agent), in_thread(lambda: error_of(lambda: echo(client, "x", None))) as future:
        agent.next_call()
        client.close()
        assert "closed on this side" in reason_of_loss(future.result(PATIENCE))
        assert "closed on this side" in reason_of_loss(error_of(lambda: echo(client, "x")))
        client.close()


def test_closing_while_a_caller_is_stuck_in_sending() -> None:
    with client_and_agent() as (client, _), in_thread(lambda: error_of(lambda: echo(client, "x" * (3 << 20), None))) as future:
        while not client._unsent:
            threading.Event().wait(0.001)
        client.close()
        reason_of_loss(future.result(PATIENCE))


def test_garbage_from_the_agent_ends_no_thread() -> None:
    with client_and_agent() as (client, agent):
        agent.sock.sendall(
            frames.encode(7, 99, 1, b"?") + frames.encode(2, frames.RESPONSE, 0, b"\xff") + frames.encode(1, frames.REQUEST, 0, b"")
        )
        with in_thread(lambda: echo(client, "still")) as future:
            agent.echo(1)
            assert future.result(PATIENCE) == "still"


def test_no_thread_and_no_descriptor_stays() -> None:
    before = threading.active_count()
    for _ in range(20):
        with fake_agent() as agent:
            client = Client(agent.client_end)
            agent.sock.shutdown(socket.SHUT_RDWR)
            client.close()
            assert agent.client_end.fileno() == -1
    assert threading.active_count() == before


def test_the_real_agent_from_many_threads(agent: AgentProcess) -> None:
    def work(number: int) -> tuple[int, str]:
        if number % 3 == 0:
            error = error_of(lambda: client.call(AGENT, f"No{number}", empty_pb2.Empty(), empty_pb2.Empty, PATIENCE))
            return error.code, error.message
        if number % 3 == 1:
            error = error_of(lambda: client.call(AGENT, "GetOOMEvent", empty_pb2.Empty(), agent_pb2.OOMEvent, 0.01))
            return error.code, error.message.rpartition(":")[2]
        answer = client.call("grpc.Health", "Check", health_pb2.CheckRequest(), health_pb2.HealthCheckResponse, PATIENCE)
        return answer.status, ""

    with agent.client() as client, ThreadPoolExecutor(16) as pool:
        told = list(pool.map(work, range(300)))
    for number, answer in enumerate(told):
        if number % 3 == 0:
            assert answer == (status.UNIMPLEMENTED, f"/{AGENT}/No{number} is not supported")
        else:
            assert answer[0] == (status.DEADLINE_EXCEEDED if number % 3 == 1 else 1)
