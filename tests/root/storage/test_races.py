"""Storages asked for, given back and cleared by many at once, with real mounts."""

import random
from contextlib import suppress
from pathlib import Path

import pytest

from agent import loop
from agent.device.watch import DeviceWatch
from agent.errors import WrongState
from agent.storage.manager import StorageManager, mount_storages
from agent.storage.mounted import mounted_type
from innkeeper.wire.pb.agent_pb2 import Storage
from tests.forked import CLONE_NEWNS, forked_loop
from tests.mounts import mounts

pytestmark = pytest.mark.root

USERS = 6
ROUNDS = 6


def requests(folder: Path) -> list[Storage]:
    """Memory, a bind of a directory and a bind of a file."""
    (folder / "source").mkdir()
    (folder / "source/file").write_text("text")
    return [
        Storage(driver="ephemeral", source="tmpfs", fstype="tmpfs", mount_point=f"{folder}/memory", options=["size=64k"]),
        Storage(driver="bind", source=f"{folder}/source", fstype="bind", mount_point=f"{folder}/bound", options=["rbind", "ro"]),
        Storage(driver="bind", source=f"{folder}/source/file", fstype="bind", mount_point=f"{folder}/one", options=["bind"]),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_what_a_user_has_is_mounted(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    storages = requests(tmp_path)

    async def use(table: StorageManager) -> None:
        for _ in range(ROUNDS):
            wanted = chance.sample(storages, chance.randint(1, len(storages)))
            try:
                points = await mount_storages(table, wanted)
            except WrongState:
                return
            try:
                assert table.closed or all(mounted_type(point) for point in points)
                await loop.sleep(chance.choice([0, 0, 0.002]))
                assert table.closed or all(mounted_type(point) for point in points)
            finally:
                await table.release(points)

    async def body() -> None:
        before = mounts(tmp_path)
        table = StorageManager(DeviceWatch())
        users = [loop.spawn(use(table), name=f"user {number}") for number in range(USERS)]
        await loop.sleep(0.05)
        chance.choice(users).cancel()
        if seed % 2:
            await table.clear()
        for user in users:
            with suppress(loop.TaskCancelled):
                await user.wait()
        await table.clear()
        assert mounts(tmp_path) == before
        assert not (tmp_path / "bound").exists()

    forked_loop(body, unshare=CLONE_NEWNS)
