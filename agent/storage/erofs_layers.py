"""Storage driver `erofs.multi-layer`: a root filesystem whose layers are disks.

The lower layers are erofs, each optionally verified by dm-verity. The one upper layer is ext4 and
writable. The host sends one storage per layer, all with the same mount point, and marks them with
the options X-kata.overlay-lower and X-kata.overlay-upper. The agent mounts each layer below the
container's own directory, and then an overlay of all of them at the mount point.
"""

import os
from typing import TYPE_CHECKING

from agent import loop
from agent.device.lookup import scsi_block, virtio_block
from agent.errors import AgentError, Refused
from agent.linux.openat2 import IN_ROOT, make_directory_in_root, open_without_links, openat2
from agent.storage.disk import NODE_OF, Disk, mount_disk, read
from agent.storage.driver import Context, Detach, mount_async, mount_filesystem
from agent.storage.mounted import Mounted
from agent.storage.options import parse
from agent.storage.overlayfs import CONTAINERS, layers, remove
from agent.worker import run_in_worker

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import Storage

NAME = "erofs.multi-layer"
UPPER, LOWER = "overlay-upper", "overlay-lower"
UPPER_MOUNT = "{{ mount 0 }}"
"""The first component of every path in X-kata.mkdir.path."""


async def attach(storage: "Storage", context: Context) -> Detach | None:
    """Mount every layer, then the overlay. The storages of the group are in `context.layers`.

    The undo function goes on after a failure, and raises the first AgentError at its end.
    """
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

    async def undo_after_failure() -> None:
        try:
            await detach()
        except AgentError:
            pass  # the first failure is the caller's

    try:
        places = {uppers[0]: f"{base}/upper", **{index: f"{base}/lower-{number}" for number, index in enumerate(lowers)}}
        for index in (*uppers, *lowers):
            node = await _node(group[index], context)
            undo.append(await mount_disk(disks[index], node, places[index], context))
        lower = [places[index] for index in lowers]
        undo.append(await mount_async(lambda: _overlay(storage.mount_point, f"{base}/upper", lower, made), storage.mount_point))
    except BaseException:
        await loop.shield(undo_after_failure())
        raise
    return detach


def _is_upper(disk: Disk) -> bool:
    """Return whether a layer is the upper one: marked so, or ext4 and not marked as lower."""
    return UPPER in disk.words or (disk.filesystem == "ext4" and LOWER not in disk.words)


async def _node(layer: "Storage", context: Context) -> str:
    """Wait for a layer's disk and return its device node.

    The driver determines how the disk is named. With this driver the form of the name does:
    `ID:LUN` is a SCSI disk, anything else is a virtio disk. Raises Refused for other drivers.
    """
    source = layer.source
    if layer.driver == NAME:
        find = scsi_block if ":" in source and not source.startswith("/") else virtio_block
    elif layer.driver in NODE_OF:
        find = NODE_OF[layer.driver]
    else:
        raise Refused("storage.driver", f"{layer.driver} is no disk, so no layer")
    return await find(context.devices, source)


def directories(upper: Disk) -> list[tuple[str, int]]:
    """Return the directories to create in the upper layer before the overlay is mounted.

    Each is (path relative to the root of the upper layer's disk, mode). X-kata.mkdir.path has the
    form `{{ mount 0 }}/upper:0755`. Raises Refused for a path on another layer.
    """
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
    """Create the directories of the upper layer and mount the overlay. Runs in the worker.

    The content of the disk is not trusted. The directories are created and checked with
    RESOLVE_IN_ROOT, so a symbolic link on the disk cannot lead to another place in the guest.
    """
    root = open_without_links(upper, os.O_PATH | os.O_DIRECTORY)
    for path, mode in made:
        os.close(make_directory_in_root(root, path, mode))
    for name in ("upper", "work"):
        os.close(openat2(root, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, IN_ROOT))
    data = (("lowerdir", ":".join(lower)), ("upperdir", f"{upper}/upper"), ("workdir", f"{upper}/work"))
    return mount_filesystem("overlay", "overlay", mount_point, parse(())._replace(data=tuple(layers(data))))
