"""Clients that send nonsense, break off, do not read, or do not stop: each hurts itself alone."""

import random
import socket
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from innkeeper.wire import frames, status
from tests.contract.agent_process import PATIENCE, AgentProcess, Raw
from tests.contract.wire_helpers import header, request_frame

AGENT = "grpc.AgentService"
WAITING = request_frame(1, AGENT, "GetOOMEvent")
UNREAD_LIMIT = 64 << 20
"""Bytes of growth that no client can cause by not reading; the agent queues 8 MiB of answers for it."""


def random_bytes(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def hopeless(raw: Raw, data: bytes) -> None:
    """Send what may make the agent hang up."""
    try:
        raw.send(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


@pytest.mark.parametrize("seed", range(20))
def test_garbage(agent: AgentProcess, seed: int) -> None:
    with agent.raw() as raw, agent.raw() as other:
        hopeless(raw, random_bytes(seed, 100_000))
        other.check(1)


@given(
    st.lists(st.one_of(st.binary(max_size=40), st.integers(0, 9).map(lambda stream: request_frame(stream)), st.just(WAITING)), max_size=12)
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_between_calls(agent: AgentProcess, pieces: list[bytes]) -> None:
    with agent.raw() as raw:
        hopeless(raw, b"".join(pieces))
    with agent.raw() as other:
        other.check(1)


@pytest.mark.parametrize("cut", [1, 4, 9, 10, 11, 30])
def test_half_a_frame_and_gone(agent: AgentProcess, cut: int) -> None:
    for _ in range(20):
        with agent.raw() as raw:
            raw.send(request_frame(1)[:cut])
    agent.wait_for_rest()


@pytest.mark.parametrize("length", [frames.MAX_PAYLOAD, frames.MAX_PAYLOAD + 1, 0xFFFFFFFF])
def test_a_long_frame_that_never_ends(agent: AgentProcess, length: int) -> None:
    with agent.raw() as raw:
        raw.send(header(length, 1, frames.REQUEST), bytes(1 << 20))
        with agent.raw() as other:
            other.check(1)
    agent.wait_for_rest()


def test_a_client_that_reads_no_answers(agent: AgentProcess) -> None:
    """It is read from no more once its answers fill what is queued for it; others are served; then it gets every answer."""
    before = agent.resident()
    calls = b"".join([request_frame(stream, "no.such.Service" * 40) for stream in range(1, 2001, 2)])
    with agent.raw() as raw:
        raw.sock.setblocking(False)
        sent = 0
        while True:
            try:
                sent += raw.sock.send(calls[sent % len(calls) :])
            except BlockingIOError:
                raw.sock.settimeout(0.3)  # it takes no more when it has had time to
                try:
                    sent += raw.sock.send(calls[sent % len(calls) :][:1])
                except TimeoutError:
                    break
                raw.sock.setblocking(False)
            assert sent < 1 << 30
        with agent.raw() as other:
            for stream in range(1, 101, 2):
                other.check(stream)
        assert agent.resident() - before < UNREAD_LIMIT
        raw.sock.settimeout(PATIENCE)
        whole = sent // len(calls[: len(calls) // 1000])
        for index in range(whole):
            stream, code, _ = raw.read_answer()
            assert (stream, code) == (2 * (index % 1000) + 1, status.UNIMPLEMENTED)


def test_a_client_that_never_stops_sending(agent: AgentProcess) -> None:
    """While one client floods the agent with calls and takes the answers as fast as they come, another one's are answered."""
    stop = threading.Event()
    counts = {"sent": 0, "read": 0}
    calls = b"".join([request_frame(stream, method="Version") for stream in range(1, 4001, 2)])

    def send(raw: Raw) -> None:
        while not stop.is_set():
            raw.send(calls)
            counts["sent"] += 1
        raw.sock.shutdown(socket.SHUT_WR)

    def read(raw: Raw) -> None:
        while data := raw.sock.recv(1 << 20):
            counts["read"] += len(data)

    with agent.raw() as flood, agent.raw() as other:
        threads = [threading.Thread(target=work, args=(flood,)) for work in (send, read)]
        for thread in threads:
            thread.start()
        while counts["read"] < 100_000:
            stop.wait(0.01)
        at_start = counts["read"]
        for stream in range(1, 1_000_001, 2):
            other.check(stream)
            if stream > 100 and counts["read"] > at_start:
                break
        during = counts["read"] - at_start
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert during > 0, "the flood had ended before"
    assert counts["sent"] > 0


def test_a_stream_of_connections_does_not_keep_others_waiting(agent: AgentProcess) -> None:
    stop = threading.Event()
    made = [0]

    def storm() -> None:
        while not stop.is_set():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.connect(str(agent.path))
                made[0] += 1

    with agent.raw() as other:
        threads = [threading.Thread(target=storm) for _ in range(2)]
        for thread in threads:
            thread.start()
        for stream in range(1, 201, 2):
            other.check(stream)
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert made[0] > 0
    agent.wait_for_rest()


def test_a_connection_killed_in_the_middle_of_calls(agent: AgentProcess) -> None:
    """Calls that wait are given up with it, answers that nobody takes are dropped, and the next call starts afresh."""
    for index in range(60):
        raw = agent.raw()
        raw.send(*[request_frame(2 * call + 1, AGENT, "GetOOMEvent") for call in range(50)])
        raw.send(*[request_frame(2 * call + 101, AGENT, "GetGuestDetails") for call in range(50)])
        raw.send(request_frame(99_999)[: index % 30])
        if index % 3 == 0:
            raw.read_answer()
        raw.sock.close()
        with agent.raw() as other:
            other.check(1)
    agent.wait_for_rest()
