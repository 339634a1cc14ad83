"""The table of storages while many ask for the same at once: what a user has is there, and nothing is left in the end.

A driver that only notes what it has put in place stands for mounts; it parks as often as it is told, so that others come in between.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import loop
from agent.device.watch import DeviceWatch
from agent.errors import AgentError, StepFailed, WrongState
from agent.storage import manager
from agent.storage.driver import Context, Detach
from agent.storage.manager import StorageManager, mount_storages
from innkeeper.wire.pb.agent_pb2 import Storage

if TYPE_CHECKING:
    from agent.storage.driver import Driver

POINTS = ("/a", "/b", "/c")


class Fake:
    """A driver of which every call parks `slow` times, and every `fails`th attach fails."""

    NAME = "fake"

    def __init__(self, slow: int = 1, fails: int = 0) -> None:
        self.slow = slow
        self.fails = fails
        self.attached = 0
        self.there: dict[str, int] = {}
        """Mount point -> which of the attaches put it there."""

    async def attach(self, storage: Storage, context: Context) -> Detach | None:
        point = storage.mount_point
        assert point not in self.there, "mounted twice"
        self.attached += 1
        number = self.attached
        await park(self.slow)
        if self.fails and number % self.fails == 0:
            raise StepFailed("mount", "no luck")
        self.there[point] = number

        async def detach() -> None:
            assert self.there[point] == number, "another's mount is taken away"
            await park(self.slow)
            del self.there[point]

        return detach


async def park(times: int) -> None:
    for _ in range(times):
        await loop.sleep(0)


def storages(points: Sequence[str], driver: str = Fake.NAME) -> list[Storage]:
    return [Storage(driver=driver, mount_point=point) for point in points]


def run(fake: "Driver", body: Any) -> None:
    with patch.dict(manager.DRIVERS, {Fake.NAME: fake, "blk": fake, "scsi": fake}):
        loop.run(body(StorageManager(DeviceWatch())))


def test_acquired_while_it_is_taken_away() -> None:
    """It waits for the end of that and mounts anew."""
    fake = Fake(slow=3)

    async def body(table: StorageManager) -> None:
        first = await mount_storages(table, storages(POINTS[:1]))
        going = loop.spawn(table.release(first), name="release")
        await park(2)
        assert fake.there == {"/a": 1}
        second = await mount_storages(table, storages(POINTS[:1]))
        assert going.done
        assert (fake.there, table.users("/a")) == ({"/a": 2}, 1)
        await table.release(second)
        assert fake.there == {}

    run(fake, body)


def test_cleared_while_it_is_taken_away() -> None:
    fake = Fake(slow=3)

    async def body(table: StorageManager) -> None:
        points = await mount_storages(table, storages(POINTS))
        going = loop.spawn(table.release(points), name="release")
        await park(2)
        await table.clear()
        await going.wait()
        assert fake.there == {}
        with pytest.raises(WrongState, match="the sandbox is at its end"):
            await table.acquire(storages(["/a"])[0])

    run(fake, body)


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ([("blk", "/a"), ("scsi", "/b"), ("overlayfs", "/c")], ["ab", "c"]),
        ([("overlayfs", "/a"), ("blk", "/b"), ("blk", "/c")], ["a", "bc"]),
        ([("blk", "/a"), ("blk", "/a/"), ("blk", "/b/c"), ("blk", "/b")], ["a", "ab/c", "b"]),
        ([("blk", "/a"), ("blk", "/ab")], ["aab"]),
        ([("virtio-fs", "/a"), ("virtio-fs", "/b")], ["a", "b"]),
        ([("blk", f"/{number}") for number in range(6)], ["0123", "45"]),
    ],
)
def test_which_are_mounted_at_once(requests: list[tuple[str, str]], expected: list[str]) -> None:
    groups = manager.grouped([Storage(driver=driver, mount_point=point) for driver, point in requests])
    found = ["".join(group[0].mount_point.strip("/") for group in batch) for batch in manager.batches(groups)]
    assert found == expected


def test_disks_are_mounted_at_once_and_together_or_not_at_all() -> None:
    fake = Fake(slow=3)

    async def body(table: StorageManager) -> None:
        mounting = loop.spawn(mount_storages(table, [*storages(POINTS[:2], "blk"), *storages(POINTS[2:])]), name="mount")
        await park(2)
        assert fake.attached == 2
        assert sorted(await mounting.wait()) == list(POINTS)
        await table.release(POINTS)
        fake.fails = 5
        with pytest.raises(StepFailed, match="no luck"):
            await mount_storages(table, storages(POINTS[:2], "scsi"))
        assert fake.there == {} and [table.users(point) for point in POINTS] == [0, 0, 0]

    run(fake, body)


def test_a_release_whose_caller_is_cancelled_goes_on() -> None:
    fake = Fake(slow=3)

    async def body(table: StorageManager) -> None:
        points = await mount_storages(table, storages(POINTS))
        with pytest.raises(TimeoutError), loop.timeout(0):
            await table.release(points)
        assert set(fake.there) == set(POINTS)
        again = await mount_storages(table, storages(POINTS[2:]))
        assert fake.there["/c"] == len(POINTS) + 1
        await table.release(again)
        with loop.timeout(20):
            while fake.there:
                await loop.sleep(0)

    run(fake, body)


def test_a_failure_to_take_away_is_told_and_forgotten() -> None:
    class Stuck(Fake):
        async def attach(self, storage: Storage, context: Context) -> Detach | None:
            await super().attach(storage, context)

            async def detach() -> None:
                del self.there[storage.mount_point]
                raise OSError(16, "busy") if storage.mount_point == "/b" else StepFailed("unmount", "stuck")

            return detach

    fake = Stuck()

    async def body(table: StorageManager) -> None:
        points = await mount_storages(table, storages(POINTS))
        with pytest.raises(AgentError, match="stuck"):
            await table.release(points)
        assert (fake.there, [table.users(point) for point in POINTS]) == ({}, [0, 0, 0])

    run(fake, body)


class User(NamedTuple):
    """A container: parks, takes the storages, keeps them, gives them back. Cancelled after some parks, if not None."""

    delay: int
    points: tuple[str, ...]
    keep: int
    cancelled_after: int | None


USERS = st.lists(
    st.builds(
        User,
        st.integers(0, 12),
        st.lists(st.sampled_from(POINTS), min_size=1, max_size=3, unique=True).map(tuple),
        st.integers(0, 8),
        st.none() | st.integers(0, 20),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(USERS, st.integers(0, 4), st.sampled_from([0, 3, 5]), st.none() | st.integers(0, 20))
def test_any_order(users: list[User], slow: int, fails: int, cleared_after: int | None) -> None:
    """Acquire, release, failures and cancellations in any order, and the sandbox's end at any moment."""
    fake = Fake(slow, fails)

    async def use(table: StorageManager, user: User) -> None:
        await park(user.delay)
        try:
            points = await mount_storages(table, storages(user.points))
        except (StepFailed, WrongState):
            return
        try:
            for _ in range(user.keep):
                assert table.closed or all(point in fake.there for point in points)
                await loop.sleep(0)
        finally:
            await table.release(points)

    async def body(table: StorageManager) -> None:
        tasks = [(user, loop.spawn(use(table, user), name=f"user {number}")) for number, user in enumerate(users)]
        for turn in range(21):
            for user, task in tasks:
                if user.cancelled_after == turn:
                    task.cancel()
            if cleared_after == turn:
                await table.clear()
                assert fake.there == {}
            await loop.sleep(0)
        for _, task in tasks:
            with suppress(loop.TaskCancelled):
                await task.wait()
        await table.clear()
        assert fake.there == {}
        assert [table.users(point) for point in POINTS] == [0, 0, 0]

    run(fake, body)
