"""Storages whose attach fails, and whose request is given up meanwhile: at whichever await that comes, nothing is left."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent import loop
from agent.device.watch import DeviceWatch
from agent.errors import AgentError
from agent.linux import dm
from agent.storage import disk, erofs_layers, overlayfs, sync_tree, verity
from agent.storage.manager import StorageManager
from agent.storage.options import OVERLAY_RW
from innkeeper.wire.pb.agent_pb2 import FSGroup, Storage
from tests.cancellation import at_each_await, cancelled_at
from tests.descriptors import open_descriptors
from tests.unit.storage import kernel
from tests.unit.storage.kernel import Kernel

MULTI = "X-kata.multi-layer=true"
VERIFIED = ("X-kata.dmverity-enabled=true", f"X-kata.dmverity.roothash={'ab' * 32}", "X-kata.dmverity.hashoffset=8192")


@pytest.fixture
def devices(mounts: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The devices of dm-verity that are there. Every worker parks before its work and after it, and every disk is found."""

    async def slow(work: Callable[[], bytes | None], name: str, keep: Sequence[int] = (), given: Sequence[int] = ()) -> bytes:
        await loop.sleep(0)
        outcome = await kernel.run_here(work, name, keep, given)
        await loop.sleep(0)
        return outcome

    async def find(devices: DeviceWatch, source: str) -> str:
        return f"/dev/{source}"

    made: set[str] = set()

    def create(node: str, layout: Any, name: str) -> str:
        made.add(name)
        return "/dev/dm-0"

    for module in kernel.WITH_WORKERS:
        monkeypatch.setattr(module, "run_in_worker", slow)
    for module in (disk, erofs_layers):
        monkeypatch.setattr(module, "NODE_OF", {"blk": find})
    for module in (overlayfs, erofs_layers):
        monkeypatch.setattr(module, "CONTAINERS", str(tmp_path / "run"))
    monkeypatch.setattr(verity, "open_verified", create)
    monkeypatch.setattr(dm, "remove", made.discard)
    return made


def group_that_fails(point: str, monkeypatch: pytest.MonkeyPatch) -> list[Storage]:
    """A disk of which the files cannot be given to the pod's group."""
    monkeypatch.setattr("agent.storage.fs_group._change_groups", _fail)
    return [Storage(driver="blk", source="vda", fstype="ext4", mount_point=point, fs_group=FSGroup(group_id=0))]


def layers_that_fail(point: str, monkeypatch: pytest.MonkeyPatch) -> list[Storage]:
    """Two disks that are mounted, and an overlay of them that is not."""
    monkeypatch.setattr(erofs_layers, "_overlay", _fail)
    return [
        Storage(driver="blk", source="vdb", fstype="erofs", options=[MULTI, "X-kata.overlay-lower"], mount_point=point),
        Storage(driver="blk", source="vda", fstype="ext4", options=[MULTI, "X-kata.overlay-upper"], mount_point=point),
    ]


def copy_that_fails(point: str, monkeypatch: pytest.MonkeyPatch) -> list[Storage]:
    """A volume whose tmpfs is there when its files cannot be copied."""
    monkeypatch.setattr(sync_tree, "copy", _fail)
    return [Storage(driver="watchable-bind", source=os.path.dirname(__file__), mount_point=f"{point}/volume")]


def verified_that_fails(point: str, monkeypatch: pytest.MonkeyPatch) -> list[Storage]:
    """A disk that has its dm-verity device when its mount fails."""
    monkeypatch.setattr(disk, "_mount", _fails_later)
    return [Storage(driver="blk", source="vda", fstype="erofs", options=[*VERIFIED, "ro"], mount_point=point)]


def verified(point: str, monkeypatch: pytest.MonkeyPatch) -> list[Storage]:
    """A disk with dm-verity, of which nothing fails."""
    return [Storage(driver="blk", source="vda", fstype="erofs", options=[*VERIFIED, "ro"], mount_point=point)]


def overlay_with_an_upper(point: str, monkeypatch: pytest.MonkeyPatch) -> list[Storage]:
    """An overlay with directories of its own, of which nothing fails."""
    return [Storage(driver="overlayfs", options=["lowerdir=/l", OVERLAY_RW], mount_point=point)]


def _fail(*arguments: object) -> None:
    raise OSError(5, "no luck")


async def _fails_later(*arguments: object) -> None:
    await loop.sleep(0)
    raise AgentError("no luck")


@pytest.mark.parametrize(
    "wanted", [group_that_fails, layers_that_fail, copy_that_fails, verified_that_fails, verified, overlay_with_an_upper]
)
def test_nothing_is_left(
    wanted: Callable[[str, pytest.MonkeyPatch], list[Storage]],
    devices: set[str],
    mounts: Kernel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    point = str(tmp_path / "point")
    storages = wanted(point, monkeypatch)

    async def main() -> None:
        table = StorageManager(DeviceWatch())

        async def mount(number: int) -> bool:
            got: list[str] = []

            async def work() -> None:
                got.append(await table.acquire(storages[0], "box", storages if len(storages) > 1 else ()))

            before = open_descriptors()
            try:
                cut = await cancelled_at(number, work())
            except AgentError as error:
                assert re.search("no luck", str(error))
                cut = False
            await table.release(got)
            assert [table.users(storage.mount_point) for storage in storages] == [0] * len(storages)
            assert (mounts.mounts, devices) == ({}, set()), f"await {number}"
            assert list(tmp_path.glob("run/box/*")) == [], f"await {number}"
            assert open_descriptors() == before, f"await {number}"
            return cut

        await at_each_await(mount)

    loop.run(main())
