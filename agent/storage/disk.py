"""From a whole disk to its mount: partition, verification, formatting, as a storage's words ask for. All kinds of disks share this."""

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from agent.device.block import partition
from agent.errors import Refused
from agent.storage.driver import Context, Detach, bind, mount_in_worker, mounting, refuse_driver_options
from agent.storage.mkfs import make_ext4
from agent.storage.options import Options, parse
from agent.worker import run_in_worker

if TYPE_CHECKING:
    from agent.storage.verity import Verity
    from innkeeper.wire.pb.agent_pb2 import Storage

FIELD = "storage.options"
RAW = "bind"
"""The type that stands for no filesystem: a container has the disk itself as its volume."""
CREATE_FILESYSTEM = "create_filesystem"
OURS = "X-kata."
WORDS = frozenset(
    ("overlay-upper", "overlay-lower", "multi-layer", "gpt-partitioned", "partition-number", "mkdir.path", "mkfs", "mkfs.fs", "mkfs.uuid")
)
"""Words for the agent, without `X-kata.`; those of dm-verity are storage/verity.py's."""
MKFS_TYPE = "mkfs/"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Disk(NamedTuple):
    """What a storage asks of its disk; `filesystem` is "bind" for the disk itself.

    `words` are those for the agent, `X-kata.` taken off; `options` what is left, for the mount.
    """

    filesystem: str
    options: Options
    partition: int
    verity: "Verity | None"
    format: tuple[str, ...] | None
    """Arguments of mkfs.ext4 beside the usual; None: it is formatted already."""
    words: dict[str, str]
    directories: tuple[str, ...]


def read(storage: "Storage") -> Disk:
    """Refuse what can be refused before the disk is waited for."""
    parsed = parse(storage.options)
    raw = storage.fstype == RAW
    for given, word in ((parsed.bind and not raw, "bind"), (parsed.remount, "remount")):
        if given:
            raise Refused(FIELD, f"{word} makes no sense with driver {storage.driver}")
    ours = [(key, value or "") for key, value in parsed.data if key.startswith(OURS)]
    options = parsed._replace(data=tuple((key, value) for key, value in parsed.data if not key.startswith(OURS)))
    verity = None
    if any(key.startswith(f"{OURS}dmverity") for key, _ in ours):
        from agent.storage.verity import parse as parse_verity

        verity = parse_verity(dict(ours))
    words = {key.removeprefix(OURS): value for key, value in ours if not key.startswith(f"{OURS}dmverity")}
    for word in words:
        if word not in WORDS:
            raise Refused(FIELD, f"{OURS}{word} is unknown")
    filesystem, format_ = _format(storage, words)
    if raw and options.data:
        raise Refused(FIELD, f"{options.data[0][0]} makes no sense for a disk that is not mounted")
    if verity is not None and format_ is not None:
        raise Refused(FIELD, "a disk that is verified cannot be formatted")
    directories = tuple(value for key, value in ours if key == f"{OURS}mkdir.path")
    return Disk(filesystem, options, _partition(words), verity, format_, words, directories)


def _format(storage: "Storage", words: dict[str, str]) -> tuple[str, tuple[str, ...] | None]:
    """The filesystem, and what to format it with if that is asked for."""
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
        raise Refused(FIELD, f"{OURS}mkfs.uuid={uuid[:40]}: no UUID")
    return filesystem, ("-U", uuid) if uuid else ()


def _partition(words: dict[str, str]) -> int:
    number = words.get("partition-number", "0")
    if not number.isdecimal() or not 0 <= int(number) <= 128:
        raise Refused(FIELD, f"{OURS}partition-number={number[:32]}: not of 1 to 128")
    if words.get("gpt-partitioned") == "true" and number == "0":
        raise Refused(FIELD, f"{OURS}gpt-partitioned without {OURS}partition-number")
    return int(number)


async def mount_disk(disk: Disk, node: str, mount_point: str, context: Context) -> Detach:
    """Mount the disk at `node`. Raises AgentError, TimeoutError; nothing is left then."""
    if disk.partition:
        node = await partition(context.devices, node, disk.partition)
    if disk.format is not None:
        await make_ext4(node, disk.format)
    if disk.verity is None:
        return await _mount(disk, node, mount_point)
    return await _mount_verified(disk, disk.verity, node, mount_point)


async def _mount(disk: Disk, node: str, mount_point: str) -> Detach:
    if disk.filesystem == RAW:
        return await mounting(lambda: bind(node, mount_point, disk.options), mount_point)
    return await mount_in_worker(disk.filesystem, node, mount_point, disk.options)


async def _mount_verified(disk: Disk, verity: "Verity", node: str, mount_point: str) -> Detach:
    from agent.linux import dm
    from agent.storage.verity import open_verified

    name = f"innkeeper-{os.path.basename(node)}-{os.urandom(4).hex()}"
    mapped = (await run_in_worker(lambda: open_verified(node, verity, name).encode(), f"verify {node}")).decode()
    try:
        unmount = await _mount(disk, mapped, mount_point)
    except BaseException:
        await run_in_worker(lambda: dm.remove(name), f"remove {name}")
        raise

    async def detach() -> None:
        try:
            await unmount()
        finally:
            await run_in_worker(lambda: dm.remove(name), f"remove {name}")

    return detach
