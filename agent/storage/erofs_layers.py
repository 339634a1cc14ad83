"""A root made of disks: erofs layers, each perhaps verified, and one ext4 above them that is written to.

The host sends a storage a layer, all for the same mount point, marked by words: X-kata.overlay-lower and X-kata.overlay-upper. They are
mounted below the container's own directory and put over each other at the mount point.
"""

import os
from typing import TYPE_CHECKING

from agent.device.block import named_block, scsi_block, virtio_block
from agent.errors import AgentError, Refused
from agent.linux.openat2 import IN_ROOT, make_directory_in_root, openat2
from agent.storage.disk import Disk, mount_disk, read
from agent.storage.driver import Context, Detach, mount_filesystem, mounting
from agent.storage.mounted import Mounted
from agent.storage.mountpoint import STRAIGHT
from agent.storage.options import parse
from agent.storage.overlayfs import CONTAINERS, layers, remove
from agent.worker import run_in_worker

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import Storage

NAME = "erofs.multi-layer"
UPPER, LOWER = "overlay-upper", "overlay-lower"
UPPER_MOUNT = "{{ mount 0 }}"
"""How paths of X-kata.mkdir.path begin."""


async def attach(storage: "Storage", context: Context) -> Detach | None:
    """Mount every layer, then all over each other. The storages of the group are in `context.layers`."""
    group = context.layers or (storage,)
    disks = [read(layer) for layer in group]
    uppers = [index for index, disk in enumerate(disks) if _is_upper(disk)]
    lowers = [index for index, disk in enumerate(disks) if not _is_upper(disk)]
    if len(uppers) != 1 or not lowers:
        raise Refused("storages", f"{len(uppers)} upper and {len(lowers)} lower layers for {storage.mount_point}: one and at least one")
    for disk in disks:
        if disk.filesystem not in ("ext4", "erofs"):
            raise Refused("storage.fstype", f"{disk.filesystem}: layers are ext4 or erofs")
    made = directories(disks[uppers[0]])
    base = f"{CONTAINERS}/{context.container_id or 'sandbox'}/multi-layer"
    undo: list[Detach] = []

    async def detach() -> None:
        failure: AgentError | None = None
        while undo:
            try:
                await undo.pop()()
            except AgentError as error:
                failure = failure or error
        await run_in_worker(lambda: remove([base]), f"remove {base}")
        if failure is not None:
            raise failure

    try:
        places = {uppers[0]: f"{base}/upper", **{index: f"{base}/lower-{number}" for number, index in enumerate(lowers)}}
        for index in (*uppers, *lowers):
            node = await _node(group[index], context)
            undo.append(await mount_disk(disks[index], node, places[index], context))
        lower = [places[index] for index in lowers]
        undo.append(await mounting(lambda: _overlay(storage.mount_point, f"{base}/upper", lower, made), storage.mount_point))
    except BaseException:
        await detach()
        raise
    return detach


def _is_upper(disk: Disk) -> bool:
    return UPPER in disk.words or (disk.filesystem == "ext4" and LOWER not in disk.words)


async def _node(layer: "Storage", context: Context) -> str:
    """The node of a layer's disk: the driver tells how it is named, or for this driver the name itself."""
    source = layer.source
    if layer.driver == "scsi" or (layer.driver == NAME and ":" in source and not source.startswith("/")):
        return await scsi_block(context.devices, source)
    if layer.driver in ("mmioblk", "nvdimm"):
        return await named_block(context.devices, source)
    if layer.driver in ("blk", NAME):
        return await virtio_block(context.devices, source)
    raise Refused("storage.driver", f"{layer.driver} is no disk, so no layer")


def directories(upper: Disk) -> list[tuple[str, int]]:
    """(path within the upper layer's disk, mode) to make before the overlay is mounted: `{{ mount 0 }}/upper:0755`."""
    found = [("upper", 0o755), ("work", 0o755)]
    for text in upper.directories:
        path, _, mode = text.partition(":")
        if not path.startswith(f"{UPPER_MOUNT}/"):
            raise Refused("storage.options", f"X-kata.mkdir.path={text[:80]}: only the upper layer, {UPPER_MOUNT}, can be written to")
        try:
            found.append((path.removeprefix(f"{UPPER_MOUNT}/"), int(mode.split(":")[0] or "755", 8) & 0o7777))
        except ValueError:
            raise Refused("storage.options", f"X-kata.mkdir.path={text[:80]}: no mode in octal") from None
    return found


def _overlay(mount_point: str, upper: str, lower: list[str], made: list[tuple[str, int]]) -> Mounted:
    """In the worker. What a disk holds is not trusted: its directories are made and found within it."""
    root = openat2(-100, upper, os.O_PATH | os.O_DIRECTORY, STRAIGHT)
    for path, mode in made:
        os.close(make_directory_in_root(root, path, mode))
    for name in ("upper", "work"):
        os.close(openat2(root, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, IN_ROOT))
    data = (("lowerdir", ":".join(lower)), ("upperdir", f"{upper}/upper"), ("workdir", f"{upper}/work"))
    return mount_filesystem("overlay", "overlay", mount_point, parse(())._replace(data=tuple(layers(data))))
