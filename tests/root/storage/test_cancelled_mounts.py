"""A mount whose call is given up, or whose worker dies, at any moment: it is not there afterwards, and nobody's descriptor is left."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import loop
from agent.errors import StepFailed
from agent.linux.reaper import reaper
from agent.storage.driver import mount_async, mount_filesystem, mount_in_worker
from agent.storage.mounted import Mounted, mount_ids
from agent.storage.options import parse
from tests.descriptors import open_descriptors
from tests.needs import needs

pytestmark = [pytest.mark.root, needs("module:prctl")]

LIMIT = 20


class SlowToEnd(Mounted):
    """Handed over, but the worker is not at its end."""

    def send(self, to: socket.socket) -> None:
        super().send(to)
        signal.pause()


def place(point: str) -> Mounted:
    return mount_filesystem("tmpfs", "none", point, parse([]))


def place_and_hang(point: str) -> Mounted:
    place(point)
    signal.pause()
    raise AssertionError("woken")


def hand_over_and_hang(point: str) -> Mounted:
    return SlowToEnd(*place(point))


def place_and_die(point: str) -> Mounted:
    place(point)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("alive")


@pytest.fixture
def point(tmp_path: Path) -> str:
    return str(tmp_path / "point")


def _state() -> tuple[frozenset[str], list[str], int]:
    """Descriptors, mounts of tests in this process, children."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return open_descriptors(), [line for line in mounts if "/point " in line], len(reaper)


async def _mounted(point: str) -> None:
    with loop.timeout(LIMIT):
        while not mount_ids(point):
            await loop.sleep(0.005)


@pytest.mark.parametrize("work", [place_and_hang, hand_over_and_hang])
@pytest.mark.parametrize("there", [False, True], ids=["new", "over another"])
def test_a_call_that_is_given_up_while_its_worker_has_mounted(work: Callable[[str], Mounted], there: bool, point: str) -> None:
    async def main() -> None:
        other = await mount_in_worker("ramfs", "other", point, parse([])) if there else None
        before = mount_ids(point)
        task = loop.spawn(mount_async(lambda: work(point), point), name="mount")
        with loop.timeout(LIMIT):
            while mount_ids(point) == before:
                await loop.sleep(0.005)
        await task.stop()
        assert mount_ids(point) == before
        if other is not None:
            await other()

    before = _state()
    loop.run(main())
    assert _state() == before


def test_what_was_there_already_stays(point: str) -> None:
    """A mount of that type is taken for the one that is asked for; it is not the call's to take away."""

    async def main() -> None:
        detach = await mount_in_worker("tmpfs", "none", point, parse([]))
        there = mount_ids(point)
        with pytest.raises(TimeoutError), loop.timeout(0.3):
            await mount_async(lambda: hand_over_and_hang(point), point)
        assert mount_ids(point) == there
        await detach()

    before = _state()
    loop.run(main())
    assert _state() == before


def test_a_deadline_at_that_moment(point: str) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError), loop.timeout(0.3):
            await mount_async(lambda: place_and_hang(point), point)
        assert not mount_ids(point)

    before = _state()
    loop.run(main())
    assert _state() == before


def test_a_worker_that_dies_after_it_has_mounted(point: str) -> None:
    async def main() -> None:
        with pytest.raises(StepFailed, match="status 137"):
            await mount_async(lambda: place_and_die(point), point)
        assert not mount_ids(point)

    before = _state()
    loop.run(main())
    assert _state() == before


def test_a_mount_is_taken_away_although_no_worker_can_be_started(point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_process() -> int:
        raise OSError(11, "Resource temporarily unavailable")

    async def main() -> None:
        detach = await mount_in_worker("tmpfs", "none", point, parse([]))
        await _mounted(point)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fork", no_process)
            await detach()

    before = _state()
    loop.run(main())
    assert _state() == before
