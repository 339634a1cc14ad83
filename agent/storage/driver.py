"""The interface of a storage driver, and the mount helpers that drivers share.

A driver is a module with a function `attach`, which the table of storage/manager.py lists by name:

    async def attach(storage: Storage, context: Context) -> Detach | None

`attach` mounts the storage at its mount point. It returns a function that undoes this, or None if
there is nothing to undo. A failed `attach` leaves nothing behind. What it undoes itself is run by
`loop.shield`: the request may be cancelled while it fails, and nobody else knows what is left.

Most mounts are made in a worker (agent/worker.py), because a device or the far side of a share can
block mount(2) for any length of time, and PID 1 must not block. The worker passes descriptors of
the new mount back, so the agent later unmounts that mount and not a path (storage/mounted.py).
"""

import os
import socket
import stat
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from agent import loop
from agent.errors import Refused, StepFailed
from agent.linux.fd import OwnedFd
from agent.linux.mount import clone_tree, new_mount, set_attributes
from agent.linux.openat2 import open_without_links
from agent.storage import options as mount_options
from agent.storage.mounted import Mounted, mount_ids, mount_on, mounted_type
from agent.storage.options import Options
from agent.worker import NotStarted, run_in_worker

if TYPE_CHECKING:
    from agent.device.watch import DeviceWatch
    from innkeeper.wire.pb.agent_pb2 import Storage

Detach = Callable[[], Coroutine[Any, Any, None]]
READ_ONLY_FILESYSTEMS = frozenset(("erofs", "squashfs", "iso9660"))


class Context(NamedTuple):
    """What a driver may need in addition to the request.

    `container_id` is empty for the sandbox's own storages. `layers` holds every storage of a
    multi-layer root, and is empty otherwise.
    """

    devices: "DeviceWatch"
    container_id: str = ""
    layers: "Sequence[Storage]" = ()


class Driver(Protocol):
    """A module of this package that implements one or more values of `Storage.driver`."""

    async def attach(self, storage: "Storage", context: Context) -> Detach | None:
        """Mount the storage and return its undo function; see the module's docstring."""


def refuse_driver_options(storage: "Storage", *known: str) -> dict[str, list[str]]:
    """Return `driver_options` as key -> values.

    Raises Refused, naming the key, for a key that is not in `known`.
    """
    found: dict[str, list[str]] = {}
    for option in storage.driver_options:
        key, _, value = option.partition("=")
        if key not in known:
            raise Refused("storage.driver_options", f"{key} is not supported by driver {storage.driver}")
        found.setdefault(key, []).append(value)
    return found


def options_without(storage: "Storage", *refused: str, data: bool = True) -> Options:
    """Return the parsed mount options.

    Raises Refused for an option in `refused` ("bind", "remount"), and without `data` for one of a
    file system.
    """
    parsed = mount_options.parse(storage.options)
    wrong = [word for word in refused if getattr(parsed, word)] + [key for key, _ in parsed.data if not data]
    if wrong:
        raise Refused("storage.options", f"{wrong[0]} makes no sense with driver {storage.driver}")
    return parsed


def mount_filesystem(filesystem: str, source: str, mount_point: str, options: Options) -> Mounted:
    """Mount a new instance of `filesystem` at `mount_point`, which is created if missing.

    If the topmost mount there already has that type, it is returned instead.
    """
    if mounted_type(mount_point) == filesystem:
        return Mounted.at(mount_point)
    data: list[tuple[bytes, bytes | None]] = [(b"source", source.encode())]
    if options.read_only or filesystem in READ_ONLY_FILESYSTEMS:
        data.append((b"ro", None))
    data += [(key.encode(), None if value is None else value.encode()) for key, value in options.data]
    return mount_on(new_mount(filesystem.encode(), tuple(data), options.attributes), mount_point, options)


def bind(source: str, mount_point: str, options: Options) -> Mounted:
    """Bind-mount `source` at `mount_point`, which is created as a file or directory if missing.

    Raises OSError ELOOP for a symbolic link anywhere in `source`. For a recursive bind the mount
    attributes also apply to the mounts below.
    """
    with OwnedFd(open_without_links(source, os.O_PATH)) as source_fd:
        directory = stat.S_ISDIR(os.fstat(source_fd).st_mode)
        mount = clone_tree(source_fd, options.recursive)
    try:
        if options.attributes or options.cleared:
            set_attributes(mount, options.attributes, options.cleared, options.recursive)
    except OSError:
        os.close(mount)
        raise
    return mount_on(mount, mount_point, options, directory)


async def mount_async(work: Callable[[], Mounted], mount_point: str) -> Detach:
    """Run `work`, which mounts something at `mount_point`, in a worker. Return the undo function.

    A worker is used because the device or the far side of a share may block the call.

    A worker that fails, or is killed because the request was cancelled, may or may not have
    mounted. It may have been killed between mounting and sending the descriptors, so the message on
    the socket alone does not settle it. The ids of the mounts at the mount point are therefore
    noted before the worker starts. Only a mount whose id is new is removed afterwards.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with ours, theirs:
        before = mount_ids(mount_point)
        try:
            await run_in_worker(lambda: work().send(theirs), f"mount {mount_point}", keep=(theirs.fileno(),))
        except BaseException:
            await loop.shield(_undo(ours, mount_point, before))
            raise
        return unmounter(Mounted.receive(ours), mount_point)


async def _undo(ours: socket.socket, mount_point: str, before: frozenset[int]) -> None:
    """Unmount what a failed or killed worker has mounted, whether or not it sent descriptors."""
    try:
        mounted = Mounted.receive(ours)
    except BlockingIOError:
        if mount_ids(mount_point) <= before:
            return
        mounted = Mounted.at(mount_point)
    if mount_ids(mount_point) <= before:
        mounted.close()  # mount_filesystem() found this mount already there: it is not ours
        return
    await unmounter(mounted, mount_point)()


async def mount_in_worker(filesystem: str, source: str, mount_point: str, options: Options) -> Detach:
    """Run `mount_filesystem` in a worker and return the undo function; see `mount_async`."""
    return await mount_async(lambda: mount_filesystem(filesystem, source, mount_point, options), mount_point)


def unmounter(mounted: Mounted, mount_point: str) -> Detach:
    """Return a function that unmounts `mounted`. It raises StepFailed.

    The unmount runs in a worker that receives the last descriptors of the mount. A lazy unmount
    finishes when the last reference is dropped, and that close may block while the filesystem
    writes back its dirty data.
    """

    async def detach() -> None:
        name = f"unmount {mount_point}"
        try:
            await run_in_worker(mounted.unmount, name, given=(mounted.root, mounted.above))
        except NotStarted:
            try:
                mounted.unmount()  # no worker: block here, since a mount left now is never removed
            except OSError as error:
                raise StepFailed(name, error.strerror or str(error), error.errno or 0) from error

    return detach
