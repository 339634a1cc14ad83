"""The loop: tasks, cancellation, timeouts, descriptors, signals."""

import os
import signal

import pytest

from agent import loop
from agent.loop import (
    Cancelled,
    Event,
    Lock,
    Queue,
    QueueClosed,
    TaskCancelled,
    gather,
    on_signal,
    readable,
    run,
    sleep,
    spawn,
    timeout,
    writable,
)


def test_run_returns_the_result_and_raises_the_error() -> None:
    async def seven() -> int:
        await sleep(0)
        return 7

    async def fail() -> None:
        raise ValueError("x")

    assert run(seven()) == 7
    with pytest.raises(ValueError, match="x"):
        run(fail())


def test_a_task_result_reaches_its_waiters() -> None:
    async def work() -> str:
        await sleep(0.001)
        return "done"

    async def main() -> list[str]:
        task = spawn(work(), name="work")
        first = await task.wait()
        return [first, await task.wait()]

    assert run(main()) == ["done", "done"]


def test_cancel_runs_finally_and_waiter_sees_cancelled() -> None:
    seen: list[str] = []

    async def stuck() -> None:
        try:
            await Event().wait()
        finally:
            seen.append("finally")

    async def main() -> None:
        task = spawn(stuck(), name="stuck")
        await sleep(0)
        task.cancel()
        with pytest.raises(TaskCancelled):
            await task.wait()

    run(main())
    assert seen == ["finally"]


def test_tasks_left_behind_are_cancelled() -> None:
    seen: list[str] = []

    async def stuck() -> None:
        try:
            await sleep(1000)
        except Cancelled:
            seen.append("cancelled")
            raise

    async def main() -> None:
        spawn(stuck(), name="stuck")
        await sleep(0)

    run(main())
    assert seen == ["cancelled"]


def test_unwatched_failure_is_logged_and_the_loop_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    async def fail() -> None:
        raise ValueError("nobody looks")

    async def main() -> str:
        spawn(fail(), name="lonely")
        await sleep(0.001)
        return "still here"

    assert run(main()) == "still here"
    assert "lonely" in capfd.readouterr().err


def test_timeout_and_nesting() -> None:
    async def main() -> list[str]:
        seen = []
        with pytest.raises(TimeoutError), timeout(0.001):
            await Event().wait()
        seen.append("single")
        with timeout(1000):
            with pytest.raises(TimeoutError), timeout(0.001):
                await sleep(1000)
            seen.append("inner")
        with pytest.raises(TimeoutError), timeout(0.001), timeout(1000):
            await sleep(1000)
        seen.append("outer")
        with timeout(None):
            await sleep(0)
        return seen

    assert run(main()) == ["single", "inner", "outer"]


def test_timeout_does_not_swallow_a_cancel() -> None:
    async def victim() -> None:
        with timeout(1000):
            await sleep(1000)

    async def main() -> bool:
        task = spawn(victim(), name="victim")
        await sleep(0)
        task.cancel()
        with pytest.raises(TaskCancelled):
            await task.wait()
        return True

    assert run(main())


def test_descriptors_wake_reader_and_writer() -> None:
    async def main() -> bytes:
        r, w = os.pipe()
        os.set_blocking(w, False)
        try:
            await writable(w)

            async def late() -> None:
                await sleep(0.001)
                os.write(w, b"hello")

            spawn(late(), name="late")
            await readable(r)
            data = os.read(r, 10)
            os.close(w)
            w = -1
            await readable(r)
            return data + os.read(r, 10)
        finally:
            os.close(r)
            if w >= 0:
                os.close(w)

    assert run(main()) == b"hello"


def test_regular_file_is_always_ready(tmp_path: os.PathLike[str]) -> None:
    async def main() -> None:
        fd = os.open(os.path.join(tmp_path, "f"), os.O_RDWR | os.O_CREAT)
        try:
            await readable(fd)
            await writable(fd)
        finally:
            os.close(fd)

    run(main())
    with pytest.raises(RuntimeError, match="no loop is running"):
        loop.current_task()


def test_exited_by_pidfd_and_sigchld_hook() -> None:
    async def main() -> int:
        reaped = Event()
        on_signal(signal.SIGCHLD, reaped.set)
        pid = os.fork()
        if pid == 0:
            os._exit(3)
        pidfd = os.pidfd_open(pid)
        try:
            await loop.exited(pidfd)
            await reaped.wait()
        finally:
            os.close(pidfd)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert run(main()) == 3
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL


def test_lock_is_fair_and_survives_cancel() -> None:
    order: list[str] = []

    async def main() -> None:
        lock, cancelled = Lock(), Event()

        async def hold(name: str) -> None:
            async with lock:
                order.append(name)
                await cancelled.wait()

        first = spawn(hold("a"), name="a")
        second = spawn(hold("b"), name="b")
        third = spawn(hold("c"), name="c")
        await sleep(0)
        second.cancel()
        cancelled.set()
        await first.wait()
        await third.wait()
        assert lock.owner is None

    run(main())
    assert order == ["a", "c"]


def test_queue_order_close_and_lost_wakeup() -> None:
    async def main() -> list[int]:
        queue: Queue[int] = Queue()
        got: list[int] = []

        async def consume() -> None:
            got.append(await queue.get())

        one = spawn(consume(), name="one")
        two = spawn(consume(), name="two")
        await sleep(0)
        queue.put_nowait(1)
        one.cancel()
        await two.wait()
        queue.put_nowait(2)
        queue.close()
        got.append(await queue.get())
        with pytest.raises(QueueClosed):
            await queue.get()
        with pytest.raises(QueueClosed):
            queue.put_nowait(3)
        return got

    assert run(main()) == [1, 2]


def test_a_busy_task_does_not_starve_another() -> None:
    async def main() -> int:
        rounds = 0
        stop = Event()

        async def spin() -> None:
            nonlocal rounds
            while not stop.is_set:
                rounds += 1
                await sleep(0)

        spawn(spin(), name="spin")
        await sleep(0.005)
        stop.set()
        return rounds

    assert run(main()) > 1


def test_gather_waits_for_all_and_raises_the_first() -> None:
    async def main() -> list[str]:
        seen: list[str] = []

        async def fail() -> None:
            raise ValueError("first")

        async def slow() -> None:
            await sleep(0.002)
            seen.append("slow")

        with pytest.raises(ValueError, match="first"):
            await gather(fail(), slow())
        return seen

    assert run(main()) == ["slow"]
