"""Work in a forked child: its bytes, its errors, its end."""

import errno
import os
import select
import signal
from functools import partial

import pytest

from agent import loop
from agent.errors import Refused, StepFailed
from agent.linux.reaper import reaper
from agent.worker import MAX_OUTCOME, NotStarted, run_in_worker
from innkeeper.wire import status
from tests.descriptors import open_descriptors
from tests.eventually import DEADLINE
from tests.needs import needs

pytestmark = needs("module:prctl")


def test_bytes_come_back() -> None:
    data = os.urandom(300_000)
    assert loop.run(run_in_worker(lambda: data, "w")) == data
    assert loop.run(run_in_worker(lambda: None, "w")) == b""


def test_the_loop_goes_on_meanwhile() -> None:
    """The worker waits for a byte that the loop writes."""
    read_end, write_end = os.pipe()

    def wait_for_the_loop() -> None:
        assert select.select([read_end], [], [], DEADLINE)[0], "the loop waits for the worker"

    async def main() -> list[str]:
        order: list[str] = []

        async def work() -> None:
            await run_in_worker(wait_for_the_loop, "w", keep=[read_end])
            order.append("worker")

        task = loop.spawn(work(), name="work")
        await loop.sleep(0.01)
        order.append("loop")
        os.write(write_end, b"x")
        await task.wait()
        return order

    try:
        assert loop.run(main()) == ["loop", "worker"]
    finally:
        os.close(read_end)
        os.close(write_end)


def _fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "text", "number"),
    [
        (OSError(errno.ENODEV, "No such device", "/dev/vdz"), "step: /dev/vdz: No such device", errno.ENODEV),
        (OSError(errno.EIO, "bad"), "step: bad", errno.EIO),
        (RuntimeError("odd"), "step: RuntimeError: odd", 0),
    ],
)
def test_errors_carry_the_steps_name(error: BaseException, text: str, number: int) -> None:
    with pytest.raises(StepFailed) as caught:
        loop.run(run_in_worker(lambda: _fail(error), "step"))
    assert str(caught.value) == text
    assert caught.value.errno == number


def test_a_refusal_keeps_its_code() -> None:
    with pytest.raises(StepFailed, match="field: no good") as caught:
        loop.run(run_in_worker(lambda: _fail(Refused("field", "no good")), "step"))
    assert caught.value.code == status.INVALID_ARGUMENT


def test_a_worker_that_is_killed() -> None:
    with pytest.raises(StepFailed, match="ended with status 137"):
        loop.run(run_in_worker(lambda: os.kill(os.getpid(), signal.SIGKILL), "step"))


def test_more_than_may_come_back() -> None:
    with pytest.raises(StepFailed):
        loop.run(run_in_worker(lambda: bytes(MAX_OUTCOME + 1), "step"))


def test_descriptors_are_closed_but_those_kept() -> None:
    read_end, write_end = os.pipe()

    def work() -> bytes:
        return b" ".join(name.encode() for name in os.listdir("/proc/self/fd") if int(name) in (read_end, write_end))

    try:
        assert loop.run(run_in_worker(work, "w", keep=[write_end])) == str(write_end).encode()
    finally:
        os.close(read_end)
        os.close(write_end)


def test_a_cancelled_wait_kills_the_worker() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError), loop.timeout(0.05):
            await run_in_worker(signal.pause, "w")
        await loop.sleep(0.2)

    began = len(reaper)
    descriptors = open_descriptors()
    loop.run(main())
    assert len(reaper) == began
    assert open_descriptors() == descriptors


def _write(fd: int) -> None:
    os.write(fd, b"x")


@pytest.mark.parametrize("call", ["pipe2", "fork", "pidfd_open"])
@pytest.mark.parametrize("at", [1, 2])
def test_a_worker_that_cannot_be_started_leaves_nothing(call: str, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system call fails; the work is not begun, no descriptor or child is left, and what was to be given stays the caller's."""
    real, calls = getattr(os, call), 0

    def fails(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == at:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(*arguments)

    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    before, children = open_descriptors(), len(reaper)
    monkeypatch.setattr(os, call, fails)

    async def main() -> None:
        for _ in range(at):
            given = os.dup(write_end)
            try:
                await run_in_worker(partial(_write, given), "w", given=(given,))
            except NotStarted as error:
                assert (error.errno, error.code) == (errno.EMFILE, StepFailed("w", "").code)
                os.close(given)  # it would not be open if it were not ours
                return
            assert os.read(read_end, 1) == b"x"
        assert call == "pipe2"  # which one worker calls twice

    loop.run(main())
    assert calls >= at
    with pytest.raises(BlockingIOError):
        os.read(read_end, 1)
    assert open_descriptors() == before
    assert len(reaper) == children
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    os.close(read_end)
    os.close(write_end)


def test_a_cancelled_task_goes_on_when_its_worker_has_ended() -> None:
    """What the worker has done is known then."""
    started, write_end = os.pipe()

    def work() -> None:
        os.write(write_end, str(os.getpid()).encode())
        signal.pause()

    async def main() -> None:
        task = loop.spawn(run_in_worker(work, "w", keep=(write_end,)), name="work")
        await loop.readable(started)
        pid = int(os.read(started, 100))
        await task.stop()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    loop.run(main())
    os.close(started)
    os.close(write_end)
