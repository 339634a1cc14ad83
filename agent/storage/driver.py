"""What every driver is: a module with NAME and `attach`.

    NAME = "blk"
    async def attach(storage: Storage, context: Context) -> Detach | None

`attach` puts the storage at its mount point and answers with what takes it away again, None where nothing need be. It leaves nothing
behind when it fails.
"""

import os
import socket
import stat
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from agent import loop
from agent.errors import Refused, StepFailed
from agent.linux.mount import clone_tree, new_mount, set_attributes
from agent.linux.openat2 import openat2
from agent.storage import options as mount_options
from agent.storage.mounted import Mounted, mount_ids, mount_on, mounted_type
from agent.storage.mountpoint import STRAIGHT
from agent.storage.options import Options
from agent.worker import NotStarted, run_in_worker

if TYPE_CHECKING:
    from agent.device.watch import DeviceWatch
    from innkeeper.wire.pb.agent_pb2 import Storage

Detach = Callable[[], Awaitable[None]]
READ_ONLY_FILESYSTEMS = frozenset(("erofs", "squashfs", "iso9660"))


class Context(NamedTuple):
    """What a driver may need beside the request. `container_id` is empty for the sandbox's own storages; `layers` are all storages of a
    root that is made of several."""

    devices: "DeviceWatch"
    container_id: str = ""
    layers: "Sequence[Storage]" = ()


class Driver(Protocol):
    """A module of this package that serves one `Storage.driver`. With STAYS what it has put in place lasts as long as the sandbox."""

    NAME: str

    async def attach(self, storage: "Storage", context: Context) -> Detach | None:
        """See the module's docstring."""


def refuse_driver_options(storage: "Storage", *known: str) -> dict[str, list[str]]:
    """`driver_options` as key -> values; a key that is not `known` is refused by name."""
    found: dict[str, list[str]] = {}
    for option in storage.driver_options:
        key, _, value = option.partition("=")
        if key not in known:
            raise Refused("storage.driver_options", f"{key} is not supported by driver {storage.driver}")
        found.setdefault(key, []).append(value)
    return found


def plain_options(storage: "Storage") -> Options:
    """The options of a storage that is neither a bind nor a remount; those are refused."""
    parsed = mount_options.parse(storage.options)
    for given, word in ((parsed.bind, "bind"), (parsed.remount, "remount")):
        if given:
            raise Refused("storage.options", f"{word} makes no sense with driver {storage.driver}")
    return parsed


def mount_filesystem(filesystem: str, source: str, mount_point: str, options: Options) -> Mounted:
    """Mount a new instance of `filesystem` at `mount_point`, made where missing. One of that type that is there already is taken for it."""
    if mounted_type(mount_point) == filesystem:
        return Mounted.at(mount_point)
    data: list[tuple[bytes, bytes | None]] = [(b"source", source.encode())]
    if options.read_only or filesystem in READ_ONLY_FILESYSTEMS:
        data.append((b"ro", None))
    data += [(key.encode(), None if value is None else value.encode()) for key, value in options.data]
    return mount_on(new_mount(filesystem.encode(), tuple(data), options.attributes), mount_point, options)


def bind(source: str, mount_point: str, options: Options) -> Mounted:
    """Bind `source` (no symbolic link in it) at `mount_point`, made of its kind where missing. Attributes hold for mounts below too."""
    source_fd = openat2(-100, source, os.O_PATH, STRAIGHT)
    try:
        directory = stat.S_ISDIR(os.fstat(source_fd).st_mode)
        mount = clone_tree(source_fd, options.recursive)
    finally:
        os.close(source_fd)
    try:
        if options.attributes or options.cleared:
            set_attributes(mount, options.attributes, options.cleared, options.recursive)
    except OSError:
        os.close(mount)
        raise
    return mount_on(mount, mount_point, options, directory)


async def mounting(work: Callable[[], Mounted], mount_point: str) -> Detach:
    """Run `work` in a worker, where the device or the other side of a share may keep it waiting. Its result takes the mount away."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with ours, theirs:
        before = mount_ids(mount_point)
        try:
            await run_in_worker(lambda: work().send(theirs), f"mount {mount_point}", keep=(theirs.fileno(),))
        except BaseException:
            await loop.shield(_undo(ours, mount_point, before))
            raise
        return unmounting(Mounted.receive(ours), mount_point)


async def _undo(ours: socket.socket, mount_point: str, before: frozenset[int]) -> None:
    """Take away what a worker that was killed has mounted: it may have handed it over, or have had no time for that."""
    try:
        mounted = Mounted.receive(ours)
    except BlockingIOError:
        if mount_ids(mount_point) <= before:
            return
        mounted = Mounted.at(mount_point)
    if mount_ids(mount_point) <= before:
        mounted.close()  # one that was there already, and has been taken for it
        return
    await unmounting(mounted, mount_point)()


async def mount_in_worker(filesystem: str, source: str, mount_point: str, options: Options) -> Detach:
    """`mount_filesystem`, by `mounting`."""
    return await mounting(lambda: mount_filesystem(filesystem, source, mount_point, options), mount_point)


def unmounting(mounted: Mounted, mount_point: str) -> Detach:
    """What takes the mount away again.

    In a worker, to which the last descriptors of the mount are given: a filesystem that is not used any more may have much to write.
    """

    async def detach() -> None:
        name = f"unmount {mount_point}"
        try:
            await run_in_worker(mounted.take_away, name, given=(mounted.root, mounted.above))
        except NotStarted:
            try:
                mounted.take_away()  # here then: a mount without an owner would stay for ever
            except OSError as error:
                raise StepFailed(name, error.strerror or str(error), error.errno or 0) from error

    return detach
