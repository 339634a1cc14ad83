"""The loop: descriptors with several waiters, signals, and that ready descriptors take turns."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.loop import Event, TaskCancelled, on_signal, readable, run, sleep, spawn, timeout, writable
from agent.loop.task import running_loop
from tests.descriptors import open_descriptors


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    with one, other:
        yield one, other


def fill(sock: socket.socket) -> None:
    """Until it takes no more."""
    try:
        while True:
            sock.send(bytes(65536))
    except BlockingIOError:
        pass


def drain(sock: socket.socket) -> None:
    """Until nothing is left."""
    try:
        while sock.recv(1 << 20):
            pass
    except BlockingIOError:
        pass


def test_all_readers_of_one_descriptor_are_woken() -> None:
    async def main() -> list[str]:
        woken: list[str] = []

        async def wait(name: str) -> None:
            await readable(one.fileno())
            woken.append(name)

        with pair() as (one, other):
            tasks = [spawn(wait(name), name=name) for name in "abc"]
            await sleep(0)
            other.send(b"x")
            for task in tasks:
                await task.wait()
            assert running_loop().descriptors._fds == {}
        return woken

    assert run(main()) == ["a", "b", "c"]


def test_reader_and_writer_of_one_descriptor_are_apart() -> None:
    async def main() -> list[str]:
        woken: list[str] = []

        async def read() -> None:
            await readable(one.fileno())
            woken.append("read")

        async def write() -> None:
            await writable(one.fileno())
            woken.append("write")

        with pair() as (one, other):
            fill(one)
            reader, writer = spawn(read(), name="read"), spawn(write(), name="write")
            await sleep(0.001)
            assert woken == []
            other.send(b"x")
            await reader.wait()
            await sleep(0.001)
            assert woken == ["read"]
            drain(other)
            await writer.wait()
        return woken

    assert run(main()) == ["read", "write"]


def test_the_end_of_the_other_side_wakes_both() -> None:
    async def main() -> None:
        with pair() as (one, other):
            fill(one)
            tasks = [spawn(readable(one.fileno()), name="read"), spawn(writable(one.fileno()), name="write")]
            await sleep(0)
            other.close()
            for task in tasks:
                await task.wait()

    run(main())


def test_a_pipe_nobody_reads_wakes_its_writer() -> None:
    async def main() -> None:
        r, w = os.pipe2(os.O_NONBLOCK)
        try:
            with pytest.raises(BlockingIOError):
                while True:
                    os.write(w, bytes(4096))
            task = spawn(writable(w), name="write")
            await sleep(0)
            os.close(r)
            await task.wait()
        finally:
            os.close(w)

    run(main())


def test_waiters_that_give_up_leave_nothing_behind() -> None:
    async def main() -> None:
        with pair() as (one, _):
            number = one.fileno()
            with pytest.raises(TimeoutError), timeout(0.001):
                await readable(number)
            task = spawn(readable(number), name="read")
            other_task = spawn(readable(number), name="read too")
            await sleep(0)
            task.cancel()
            with pytest.raises(TaskCancelled):
                await task.wait()
            assert not other_task.done
            other_task.cancel()
            with pytest.raises(TaskCancelled):
                await other_task.wait()
            assert running_loop().descriptors._fds == {}
        with pair() as (again, other):  # the number may be the same; it is a new descriptor
            other.send(b"x")
            await readable(again.fileno())

    run(main())


def test_a_number_that_is_no_descriptor_is_an_error() -> None:
    async def main() -> None:
        r, w = os.pipe()
        os.close(r)
        os.close(w)
        with pytest.raises(OSError):
            await readable(r)
        assert running_loop().descriptors._fds == {}

    run(main())


def test_descriptors_that_are_always_ready_take_turns() -> None:
    """Each reads one byte a turn from a socket that is never empty; none gets far ahead of another."""

    async def main() -> list[int]:
        turns = [0] * 8
        stop = Event()

        async def eat(index: int, sock: socket.socket) -> None:
            while not stop.is_set:
                await readable(sock.fileno())
                sock.recv(1)
                turns[index] += 1
                if sum(turns) > 2000:
                    stop.set()

        pairs = [socket.socketpair() for _ in turns]
        try:
            for one, other in pairs:
                one.setblocking(False)
                other.send(bytes(4096))
            tasks = [spawn(eat(index, one), name=str(index)) for index, (one, _) in enumerate(pairs)]
            for task in tasks:
                await task.wait()
        finally:
            for one, other in pairs:
                one.close()
                other.close()
        return turns

    turns = run(main())
    assert max(turns) - min(turns) <= 2


def test_a_task_that_never_waits_for_long_does_not_keep_descriptors_and_timers_waiting() -> None:
    async def main() -> None:
        stop = Event()

        async def spin() -> None:
            while not stop.is_set:
                await sleep(0)

        with pair() as (one, other):
            spinning = spawn(spin(), name="spin")
            other.send(b"x")
            await readable(one.fileno())
            await sleep(0.001)
            stop.set()
            await spinning.wait()

    run(main())


def test_signals_of_several_kinds() -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        both = Event()

        def note(name: str) -> None:
            seen.append(name)
            if len(set(seen)) == 2:
                both.set()

        on_signal(signal.SIGUSR1, lambda: note("one"))
        on_signal(signal.SIGUSR2, lambda: note("two"))
        for _ in range(100):
            os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        await both.wait()
        return seen

    seen = run(main())
    assert set(seen) == {"one", "two"}
    assert len(seen) < 102
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_wakes_a_loop_that_waits() -> None:
    async def main() -> None:
        got = Event()
        on_signal(signal.SIGALRM, got.set)
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        await got.wait()

    run(main())


def test_a_hook_can_be_replaced() -> None:
    async def main() -> None:
        got = Event()
        on_signal(signal.SIGUSR1, lambda: pytest.fail("the first one"))
        on_signal(signal.SIGUSR1, got.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        await got.wait()

    run(main())


def test_no_descriptor_of_the_loop_outlives_it() -> None:
    before = open_descriptors()

    async def main() -> None:
        on_signal(signal.SIGUSR1, lambda: None)
        await sleep(0.001)

    run(main())
    assert open_descriptors() == before
