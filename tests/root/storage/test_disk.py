"""Disks with real filesystems, on loop devices."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.device.watch import DeviceWatch
from agent.errors import AgentError
from agent.storage.manager import StorageManager
from innkeeper.wire.pb.agent_pb2 import Storage
from tests.forked import CLONE_NEWNS, forked_loop
from tests.needs import needs

pytestmark = [pytest.mark.root, needs("loop", "mke2fs")]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    node = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True).stdout.strip()
    yield node
    subprocess.run(["losetup", "--detach", node], check=True)


def on(disk: str, point: Path, *options: str, **fields: Any) -> Storage:
    return Storage(driver="blk", source=disk, fstype="ext4", mount_point=str(point), options=options, **fields)


def test_mounted_and_taken_away(disk: str, tmp_path: Path) -> None:
    subprocess.run(["mke2fs", "-q", "-t", "ext4", disk], check=True)

    async def body() -> None:
        table = StorageManager(DeviceWatch())
        point = await table.acquire(on(disk, tmp_path / "v"))
        (tmp_path / "v/file").write_text("kept")
        await table.release([point])
        assert not (tmp_path / "v").exists()
        await table.acquire(on(disk, tmp_path / "v", "ro"))
        assert (tmp_path / "v/file").read_text() == "kept"
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "v/file").write_text("changed")
        await table.clear()

    forked_loop(body, unshare=CLONE_NEWNS)


def test_filesystem_made_on_request(disk: str, tmp_path: Path) -> None:
    async def body() -> None:
        table = StorageManager(DeviceWatch())
        await table.acquire(on(disk, tmp_path / "v", driver_options=["create_filesystem=true"]))
        assert (tmp_path / "v/lost+found").is_dir()
        await table.clear()

    forked_loop(body, unshare=CLONE_NEWNS)


def test_no_filesystem_on_it(disk: str, tmp_path: Path) -> None:
    async def body() -> None:
        table = StorageManager(DeviceWatch())
        with pytest.raises(AgentError, match=f"mount {tmp_path}/v: .*Invalid argument"):
            await table.acquire(on(disk, tmp_path / "v"))
        assert table.users(str(tmp_path / "v")) == 0

    forked_loop(body, unshare=CLONE_NEWNS)
