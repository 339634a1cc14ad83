"""The loop: descriptors with an owner, who may close them under those who wait, and whose number may be another's at once."""

import os
import socket
from collections.abc import Callable

import pytest

from agent.loop import (
    DescriptorClosed,
    Fd,
    Socket,
    Task,
    TaskCancelled,
    current_task,
    pipe,
    readable,
    run,
    sleep,
    socket_pair,
    spawn,
    timeout,
    writable,
)
from agent.loop.task import running_loop


def fill(number: int) -> None:
    """Until the pipe or socket takes no more."""
    os.set_blocking(number, False)
    try:
        while True:
            os.write(number, bytes(65536))
    except BlockingIOError:
        pass


def drain(sock: Socket) -> None:
    """Until nothing is left."""
    try:
        while sock.recv(1 << 20):
            pass
    except BlockingIOError:
        pass


def place(taken: int, number: int) -> Fd:
    """Give a descriptor the number that it would have had if no other had been free."""
    if taken != number:
        os.dup2(taken, number, inheritable=False)
        os.close(taken)
    return Fd(number)


def make_reader() -> tuple[Fd, Fd]:
    """A descriptor that has nothing to read, and its other end."""
    read_end, write_end = pipe()
    return read_end, write_end


def make_writer() -> tuple[Fd, Fd]:
    """A descriptor that takes nothing, and its other end."""
    read_end, write_end = pipe()
    fill(write_end.fileno())
    return write_end, read_end


SIDES = pytest.mark.parametrize(("make", "wait"), [(make_reader, readable), (make_writer, writable)], ids=["reader", "writer"])


@SIDES
@pytest.mark.parametrize("count", [1, 2])
def test_closing_under_those_who_wait_wakes_them(make: Callable[[], tuple[Fd, Fd]], wait: Callable[..., object], count: int) -> None:
    async def main() -> None:
        ours, other = make()
        with other:
            tasks: list[Task[None]] = [spawn(wait(ours), name="wait") for _ in range(count)]  # type: ignore[arg-type]
            await sleep(0)
            ours.close()
            ours.close()
            for task in tasks:
                with timeout(20), pytest.raises(DescriptorClosed):
                    await task.wait()
            assert running_loop().descriptors._fds == {}
            with pytest.raises(DescriptorClosed):
                await wait(ours)  # type: ignore[misc]

    run(main())


@SIDES
def test_a_number_that_is_closed_and_opened_again_in_one_round(make: Callable[[], tuple[Fd, Fd]], wait: Callable[..., object]) -> None:
    """The old waiter has not run yet when the new one waits: neither disturbs the other, cancelled or not."""

    async def main() -> None:
        for cancelled in (False, True):
            ours, other = make()
            with other:
                old: Task[None] = spawn(wait(ours), name="old")  # type: ignore[arg-type]
                await sleep(0)
                number = ours.fileno()
                if cancelled:
                    old.cancel()
                ours.close()
                one, far = socket_pair()
                with place(one.detach(), number) as again, far:
                    fill(number)
                    new: Task[None] = spawn(wait(again), name="new")  # type: ignore[arg-type]
                    with timeout(20), pytest.raises(TaskCancelled if cancelled else DescriptorClosed):
                        await old.wait()
                    await sleep(0.001)
                    assert not new.done
                    far.send(b"x")
                    if wait is writable:
                        drain(far)
                    with timeout(20):
                        await new.wait()
        assert running_loop().descriptors._fds == {}

    run(main())


def test_a_file_that_is_open_elsewhere_too_is_forgotten_all_the_same() -> None:
    """epoll would go on telling of it, by a number that is another's by now."""

    async def main() -> None:
        one, other = socket_pair()
        kept = os.dup(one.fileno())
        number = one.fileno()
        task = spawn(readable(one), name="old")
        await sleep(0)
        one.close()
        read_end, write_end = pipe()
        again = place(read_end.detach(), number)
        other.send(b"for the copy")
        waiting = spawn(readable(again), name="new")
        await task.stop()
        await sleep(0.001)
        assert not waiting.done
        os.write(write_end.fileno(), b"x")
        await waiting.wait()
        for fd in (again, write_end, other, Fd(kept)):
            fd.close()

    run(main())


def test_a_number_that_somebody_closed_without_the_loop_does_not_stay_broken() -> None:
    async def main() -> None:
        read_end, write_end = os.pipe()
        task = spawn(readable(read_end), name="left behind")
        await sleep(0)
        os.close(read_end)
        os.close(write_end)
        one, other = socket.socketpair()
        again = place(one.detach(), read_end)
        with again, other:
            other.send(b"x")
            with timeout(20):
                await readable(read_end)
        await task.stop()

    run(main())


def test_a_closed_descriptor_has_no_number() -> None:
    one, other = socket_pair()
    with one, other:
        pass
    read_end, write_end = pipe()
    write_end.close()
    assert write_end.closed
    number = read_end.detach()
    assert read_end.closed
    os.close(number)
    read_end.close()
    for call in (read_end.fileno, read_end.detach):
        with pytest.raises(DescriptorClosed):
            call()
    assert one.fileno() == -1


def test_a_socket_of_another_class_changes_hands() -> None:
    one, other = socket.socketpair()
    with Socket.of(one) as ours, other:
        assert one.fileno() == -1
        assert not ours.getblocking()
        other.send(b"x")
        assert ours.recv(1) == b"x"


def test_a_forked_child_does_not_disturb_the_loop_of_its_parent() -> None:
    """It has the same epoll: what it closes stays watched in the parent."""

    async def main() -> None:
        one, other = socket_pair()
        task = spawn(readable(one), name="wait")
        await sleep(0)
        pid = os.fork()
        if pid == 0:
            try:
                one.close()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        other.send(b"x")
        with timeout(20):
            await task.wait()
        one.close()
        other.close()

    run(main())


def test_a_task_may_close_what_it_waited_for_itself() -> None:
    async def main() -> None:
        read_end, write_end = pipe()
        write_end.close()
        with read_end:
            await readable(read_end)  # nobody writes: at its end at once
        assert current_task().cancelling is None

    run(main())
