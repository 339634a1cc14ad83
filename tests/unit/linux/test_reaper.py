"""Children and orphans: every status is taken once and reaches its owner. As a child subreaper, in a forked child."""

import ctypes
import os
import signal
from collections.abc import Callable

import pytest

from agent import loop
from agent.linux.reaper import Child, Reaper
from tests.forked import forked, forked_loop

PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """From now on orphans among our descendants are ours, as they are PID 1's."""
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def child(reaper: Reaper, body: Callable[[], None] = lambda: None, status: int = 0) -> Child:
    """An owned child that runs `body` and ends with `status`."""
    pid = os.fork()
    if pid == 0:
        try:
            body()
        finally:
            os._exit(status)
    return reaper.adopt(pid, os.pidfd_open(pid))


def leave_orphans(count: int) -> None:
    """Run in a child: its own children outlive it and end by themselves."""
    for _ in range(count):
        if os.fork() == 0:
            os._exit(9)


def wait_for_end(child: Child) -> None:
    """Until it is a zombie, which stays one."""
    os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)


def has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def sweep_all(reaper: Reaper, orphans: int) -> None:
    """Sweep until so many orphans were counted; more would be an error as well."""
    while reaper.orphans < orphans:
        reaper.sweep()
    reaper.sweep()
    assert reaper.orphans == orphans


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_an_owner_collects_the_status(status: int) -> None:
    def body() -> None:
        reaper = Reaper()
        owned = child(reaper, status=status)
        assert len(reaper) == 1
        assert reaper.collect(owned, block=True) == status
        assert reaper.collect(owned) == status
        assert len(reaper) == 0
        reaper.sweep()
        assert (reaper.orphans, has_children()) == (0, False)

    forked(body)


def test_a_status_that_was_swept_reaches_its_owner() -> None:
    def body() -> None:
        reaper = Reaper()
        owned = child(reaper, status=7)
        wait_for_end(owned)
        reaper.sweep()
        assert (owned.status, len(reaper), reaper.orphans) == (7, 0, 0)
        assert reaper.collect(owned, block=True) == 7
        assert not has_children()

    forked(body)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGRTMAX])
def test_a_signal_is_128_and_its_number(signum: int) -> None:
    def body() -> None:
        reaper = Reaper()
        by_collect, by_sweep = child(reaper, signal.pause), child(reaper, signal.pause)
        os.kill(by_collect.pid, signum)
        os.kill(by_sweep.pid, signum)
        assert reaper.collect(by_collect, block=True) == 128 + signum
        wait_for_end(by_sweep)
        reaper.sweep()
        assert by_sweep.status == 128 + signum

    forked(body)


def test_a_child_that_runs_or_stops_has_no_status() -> None:
    def body() -> None:
        reaper = Reaper()
        owned = child(reaper, signal.pause)
        assert reaper.collect(owned) is None
        os.kill(owned.pid, signal.SIGSTOP)
        os.waitid(os.P_PIDFD, owned.pidfd, os.WSTOPPED | os.WNOWAIT)
        reaper.sweep()
        assert reaper.collect(owned) is None
        assert len(reaper) == 1
        os.kill(owned.pid, signal.SIGKILL)
        assert reaper.collect(owned, block=True) == 137

    forked(body)


def test_orphans_are_reaped_and_counted() -> None:
    def body() -> None:
        become_subreaper()
        reaper = Reaper()
        parent = child(reaper, lambda: leave_orphans(5), status=3)
        assert reaper.collect(parent, block=True) == 3
        sweep_all(reaper, 5)
        assert not has_children()

    forked(body)


def test_orphans_among_owned_ones_in_one_sweep() -> None:
    def body() -> None:
        become_subreaper()
        reaper = Reaper()
        parents = [child(reaper, lambda: leave_orphans(3), status=number) for number in range(20)]
        for parent in parents:
            wait_for_end(parent)
        sweep_all(reaper, 60)
        assert [parent.status for parent in parents] == list(range(20))
        assert (len(reaper), has_children()) == (0, False)

    forked(body)


def test_sweeping_without_children_is_nothing() -> None:
    def body() -> None:
        reaper = Reaper()
        reaper.sweep()
        assert (reaper.orphans, len(reaper)) == (0, 0)

    forked(body)


def test_by_signals_in_the_loop() -> None:
    """As PID 1 does it: SIGCHLD sweeps, owners wait on their pidfd, both at once, and several ends may be one signal."""

    async def body() -> None:
        become_subreaper()
        reaper = Reaper()
        loop.on_signal(signal.SIGCHLD, reaper.sweep)
        told: dict[int, int] = {}

        async def own(number: int) -> None:
            owned = child(reaper, lambda: leave_orphans(2), status=number)
            try:
                while (status := reaper.collect(owned)) is None:
                    await loop.exited(owned.pidfd)
            finally:
                os.close(owned.pidfd)
            told[number] = status

        await loop.gather(*[own(number) for number in range(40)])
        assert told == {number: number for number in range(40)}
        with loop.timeout(20):
            while reaper.orphans < 80:
                await loop.sleep(0.001)
        assert (reaper.orphans, len(reaper), has_children()) == (80, 0, False)

    forked_loop(body)
