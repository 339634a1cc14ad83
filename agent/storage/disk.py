"""Storage drivers `blk`, `mmioblk`, `nvdimm` and `scsi`: a disk with a filesystem.

The drivers differ only in how they find the device node (NODE_OF). The storage's options ask for a
partition, formatting and dm-verity. Driver erofs.multi-layer mounts its layers by this module too.

An erofs may consist of several disks, which its options name in order: `device=/dev/NAME`, or in
place of a node `device=ID:LUN` of a SCSI disk, because the host does not know the guest's names.
"""

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from agent import loop
from agent.device.lookup import named_block, partition, scsi_block, virtio_block
from agent.errors import Refused, StepFailed
from agent.storage.driver import Context, Detach, bind, mount_async, mount_in_worker, options_without, refuse_driver_options
from agent.storage.guest_program import run_program
from agent.storage.options import Options
from agent.worker import run_in_worker

if TYPE_CHECKING:
    from agent.storage.verity import Verity
    from innkeeper.wire.pb.agent_pb2 import Storage

FIELD = "storage.options"
RAW = "bind"
"""The `fstype` of a disk that is not mounted: the container gets the block device itself."""
CREATE_FILESYSTEM = "create_filesystem"
AGENT_OPTION = "X-kata."
WORDS = frozenset(
    ("overlay-upper", "overlay-lower", "multi-layer", "gpt-partitioned", "partition-number", "mkdir.path", "mkfs", "mkfs.fs", "mkfs.uuid")
)
"""Known options for the agent, without the prefix `X-kata.`. verity.py has those of dm-verity."""
MKFS_TYPE = "mkfs/"
MKFS_ARGUMENTS = ("-F", "-q", "-O", "^has_journal", "-m", "0", "-i", "163840", "-I", "128")
"""The options of Kata's agent: no journal, no reserved blocks, few and small inodes."""
NODE_OF = {"blk": virtio_block, "mmioblk": named_block, "nvdimm": named_block, "scsi": scsi_block}
"""Driver -> how the device node is found: by PCI path, name (/dev/pmemN), or ID:LUN."""
DEVICE = "device"
_SCSI = re.compile(r"[0-9]+:[0-9]+")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Disk(NamedTuple):
    """The parsed request for a disk. `filesystem` is "bind" for the block device itself.

    `words` holds the options for the agent, without the prefix `X-kata.`. `options` holds the
    others, for the mount. `partition` is a partition number, 0 for the whole disk. `directories`
    are the values of X-kata.mkdir.path.
    """

    filesystem: str
    options: Options
    partition: int
    verity: "Verity | None"
    format: tuple[str, ...] | None
    """Additional arguments of mkfs.ext4, or None if the disk must not be formatted."""
    words: dict[str, str]
    directories: tuple[str, ...]


def read(storage: "Storage") -> Disk:
    """Parse and check a storage, before the agent waits for the disk. Raises Refused."""
    raw = storage.fstype == RAW
    parsed = options_without(storage, *(() if raw else ("bind",)), "remount")
    agent_options = [(key, value or "") for key, value in parsed.data if key.startswith(AGENT_OPTION)]
    options = parsed._replace(data=tuple((key, value) for key, value in parsed.data if not key.startswith(AGENT_OPTION)))
    verity = None
    if any(key.startswith(f"{AGENT_OPTION}dmverity") for key, _ in agent_options):
        from agent.storage.verity import parse as parse_verity

        verity = parse_verity(dict(agent_options))
    words = {key.removeprefix(AGENT_OPTION): value for key, value in agent_options if not key.startswith(f"{AGENT_OPTION}dmverity")}
    for word in words:
        if word not in WORDS:
            raise Refused(FIELD, f"{AGENT_OPTION}{word} is unknown")
    filesystem, format_ = _format(storage, words)
    if raw and options.data:
        raise Refused(FIELD, f"{options.data[0][0]} makes no sense for a disk that is not mounted")
    if verity is not None and format_ is not None:
        raise Refused(FIELD, "a disk that is verified cannot be formatted")
    if verity is not None and options.value(DEVICE) is not None:
        raise Refused(FIELD, f"{DEVICE}={options.value(DEVICE)}: a disk that is verified cannot have parts that are not")
    return Disk(
        filesystem=filesystem,
        options=options,
        partition=_partition(words),
        verity=verity,
        format=format_,
        words=words,
        directories=tuple(value for key, value in agent_options if key == f"{AGENT_OPTION}mkdir.path"),
    )


def _format(storage: "Storage", words: dict[str, str]) -> tuple[str, tuple[str, ...] | None]:
    """Return (filesystem, arguments of mkfs.ext4), or (filesystem, None) if not to be formatted.

    Formatting is requested by the driver option create_filesystem, by a type `mkfs/NAME`, or by the
    option X-kata.mkfs=true. Raises Refused for any filesystem but ext4.
    """
    asked = CREATE_FILESYSTEM in refuse_driver_options(storage, CREATE_FILESYSTEM)
    filesystem = storage.fstype
    if filesystem.startswith(MKFS_TYPE) or words.get("mkfs") == "true":
        asked, filesystem = True, words.get("mkfs.fs") or filesystem.removeprefix(MKFS_TYPE) or "ext4"
    if not filesystem:
        raise Refused("storage.fstype", "is empty")
    if not asked:
        return filesystem, None
    if filesystem != "ext4":
        raise Refused("storage.fstype", f"only ext4 is made here, not {filesystem}")
    uuid = words.get("mkfs.uuid", "").lower()
    if uuid and not _UUID.fullmatch(uuid):
        raise Refused(FIELD, f"{AGENT_OPTION}mkfs.uuid={uuid[:40]}: no UUID")
    return filesystem, ("-U", uuid) if uuid else ()


def _partition(words: dict[str, str]) -> int:
    """Return the number of the partition to mount, 0 for the whole disk. Raises Refused."""
    number = words.get("partition-number", "0")
    if not number.isdecimal() or not 0 <= int(number) <= 128:
        raise Refused(FIELD, f"{AGENT_OPTION}partition-number={number[:32]}: not of 1 to 128")
    if words.get("gpt-partitioned") == "true" and number == "0":
        raise Refused(FIELD, f"{AGENT_OPTION}gpt-partitioned without {AGENT_OPTION}partition-number")
    return int(number)


async def attach(storage: "Storage", context: Context) -> Detach | None:
    """Wait for the disk, then mount it; see `mount_disk`."""
    disk = read(storage)
    node = await NODE_OF[storage.driver](context.devices, storage.source)
    return await mount_disk(disk, node, storage.mount_point, context)


async def _with_nodes(disk: Disk, context: Context) -> Disk:
    """Return the disk with the nodes of its further SCSI disks in its options. Waits for them."""
    if disk.filesystem != "erofs":
        return disk
    data = []
    for key, value in disk.options.data:
        if key == DEVICE and _SCSI.fullmatch(value or ""):
            value = await scsi_block(context.devices, value or "", FIELD)
        data.append((key, value))
    return disk._replace(options=disk.options._replace(data=tuple(data)))


async def mount_disk(disk: Disk, node: str, mount_point: str, context: Context) -> Detach:
    """Mount the disk at `node` and return the undo function.

    In this order: wait for the partition and further disks, format, verify, mount. Raises
    AgentError or TimeoutError and then leaves no mount behind.
    """
    disk = await _with_nodes(disk, context)
    if disk.partition:
        node = await partition(context.devices, node, disk.partition)
    if disk.format is not None:
        field = f"storage.driver_options: {CREATE_FILESYSTEM}"
        await run_program("mkfs.ext4", (*MKFS_ARGUMENTS, *disk.format, node), field=field)
    if disk.verity is None:
        return await _mount(disk, node, mount_point)
    return await _mount_verified(disk, disk.verity, node, mount_point)


async def _mount(disk: Disk, node: str, mount_point: str) -> Detach:
    if disk.filesystem == RAW:
        return await mount_async(lambda: bind(node, mount_point, disk.options), mount_point)
    return await mount_in_worker(disk.filesystem, node, mount_point, disk.options)


async def _mount_verified(disk: Disk, verity: "Verity", node: str, mount_point: str) -> Detach:
    """Mount through a dm-verity device, which the undo function removes after the unmount.

    A worker that is killed may have made the device: it is removed then, too.
    """
    from agent.linux import dm
    from agent.storage.verity import open_verified

    name = f"innkeeper-{os.path.basename(node)}-{os.urandom(4).hex()}"

    async def remove() -> None:
        await run_in_worker(lambda: dm.remove(name), f"remove {name}")

    async def remove_after_failure() -> None:
        try:
            await remove()
        except StepFailed:
            pass  # the first failure is the caller's; without it there may be nothing to remove

    try:
        mapped = (await run_in_worker(lambda: open_verified(node, verity, name).encode(), f"verify {node}")).decode()
        unmount = await _mount(disk, mapped, mount_point)
    except BaseException:
        await loop.shield(remove_after_failure())
        raise

    async def detach() -> None:
        try:
            await unmount()
        finally:
            await remove()

    return detach
