"""The table of the sandbox's storages: what is mounted where, and how many users each has.

Several containers may name the same mount point, and requests run concurrently, so mounting and
unmounting one mount point must never overlap. Each entry has a lock that is held for the whole
attach or detach, and stays in the table until the detach is over. A task that waited for the lock
may find that the entry was removed meanwhile. It compares the entry with the table again, and
starts over with a new entry (`acquire`) or has nothing left to do (`_release`, `_clear`).
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from agent import loop
from agent.errors import AgentError, Refused, StepFailed, Unimplemented, WrongState
from agent.run_to_completion import run_to_completion
from agent.storage import ephemeral, local, share
from agent.storage.driver import Context, Detach, Driver
from agent.storage.mountpoint import check_path

if TYPE_CHECKING:
    from agent.device.watch import DeviceWatch
    from innkeeper.wire.pb.agent_pb2 import Storage

LAYERS = "erofs.multi-layer"
DRIVERS: Mapping[str, Driver | str] = {
    "virtio-fs": share,
    "ephemeral": ephemeral,
    "local": local,
    "9p": share,
    "bind": "agent.storage.bind",
    "blk": "agent.storage.disk",
    "mmioblk": "agent.storage.disk",
    "nvdimm": "agent.storage.disk",
    "overlayfs": "agent.storage.overlayfs",
    "scsi": "agent.storage.disk",
    "watchable-bind": "agent.storage.watchable",
    LAYERS: "agent.storage.erofs_layers",
}
"""Driver name -> module. Drivers that not every pod uses are given by module name and imported on
first use."""
DISKS = frozenset(("blk", "mmioblk", "nvdimm", "scsi"))
"""Drivers whose source is a device of the VM, and no path."""
AT_ONCE = 4
"""Most disks that are mounted at the same time."""
PERSISTENT = frozenset((ephemeral.NAME, "local"))
"""Drivers of volumes that outlive the containers that use them, so that a restarted container finds
its files."""
ABSENT = {
    "image_guest_pull": "images are pulled on the host: there is no Confidential Data Hub in this guest",
    "blk-ccw": "the channel subsystem is s390x's",
}
"""Drivers that Kata's protocol defines and this agent does not implement -> reason."""
LAYER_OPTION = "X-kata.multi-layer=true"
"""The mount option that marks a storage as one layer of a multi-layer root."""


def driver_of(name: str) -> Driver:
    """Return the module that implements a driver.

    Raises Unimplemented for a driver in ABSENT and Refused for an unknown one.
    """
    if name in ABSENT:
        raise Unimplemented(f"storage.driver: {name} is not served: {ABSENT[name]}")
    driver = DRIVERS.get(name)
    if driver is None:
        raise Refused("storage.driver", f"Failed to find the storage handler {name}")
    if isinstance(driver, str):
        __import__(driver)
        driver = sys.modules[driver]
    return driver


class StoredMount:
    """The state of one mount point: attached (`ready`), being attached, or being detached.

    State changes happen under `lock`. The entry stays in the table until its detach is over.
    A `persistent` entry is kept until the sandbox ends, but only once it is `committed`, that is
    once a container that uses it has been created. Before that, a failed request undoes it.
    """

    __slots__ = ("committed", "detach", "lock", "persistent", "ready", "users")

    def __init__(self) -> None:
        self.users = 0
        self.persistent = False
        self.committed = False
        self.detach: Detach | None = None
        self.ready = False
        self.lock = loop.Lock()


class StorageManager:
    """The sandbox's storages, reference-counted by mount point.

    A second request for an attached storage only increments its count. A request for one that is
    being detached waits for that to end and then attaches anew. Detaching runs in tasks of the
    table's own, because the request that asked for it may be cancelled, for example by a client's
    deadline.
    """

    def __init__(self, devices: "DeviceWatch") -> None:
        self.devices = devices
        self.closed = False
        self._entries: dict[str, StoredMount] = {}

    def users(self, mount_point: str) -> int:
        """Return the number of users of a mount point, 0 for an unknown one."""
        entry = self._entries.get(mount_point)
        return entry.users if entry else 0

    async def acquire(self, storage: "Storage", container_id: str = "", layers: "Sequence[Storage]" = ()) -> str:
        """Attach the storage, or add a user if it is attached. Return its mount point.

        The mount point is the key for `release`.
        For a multi-layer root `layers` holds all its storages and `storage` is the first of them.
        Raises WrongState after `clear`, and AgentError if the driver fails.
        """
        driver = driver_of(LAYERS if layers else storage.driver)
        check_path("storage.mount_point", storage.mount_point)
        point = storage.mount_point.rstrip("/")
        while True:
            if self.closed:
                raise WrongState(f"storage {point}: the sandbox is at its end")
            entry = self._entries.setdefault(point, StoredMount())
            async with entry.lock:
                if self._entries.get(point) is not entry:
                    continue  # it was detached while we waited for the lock
                try:
                    if not entry.ready:
                        await self._attach(driver, storage, entry, Context(self.devices, container_id, layers))
                finally:
                    if not entry.ready:
                        del self._entries[point]
                entry.users += 1
                return point

    async def _attach(self, driver: Driver, storage: "Storage", entry: StoredMount, context: Context) -> None:
        try:
            entry.detach = await driver.attach(storage, context)
        except TimeoutError as error:
            raise StepFailed("storage", str(error)) from None
        if storage.HasField("fs_group"):
            await self._apply_fs_group(storage, entry)
        entry.persistent = storage.shared or storage.driver in PERSISTENT
        entry.ready = True

    async def _apply_fs_group(self, storage: "Storage", entry: StoredMount) -> None:
        from agent.storage import fs_group

        try:
            await fs_group.apply(storage)
        except BaseException:
            if entry.detach is not None:
                await loop.shield(entry.detach())
            raise

    def commit(self, mount_points: Sequence[str]) -> None:
        """Mark storages as committed: the container that uses them has been created."""
        for point in mount_points:
            if point in self._entries:
                self._entries[point].committed = True

    async def release(self, mount_points: Sequence[str]) -> None:
        """Remove one user from each mount point, in reverse order, and detach the unused ones.

        A persistent storage that is committed is kept until `clear`. Once begun, the release runs
        to its end even if the caller is cancelled. Raises AgentError, the last failure, after all
        are done.
        """
        if mount_points:
            await run_to_completion(self._release(tuple(mount_points)), f"release {mount_points[0]}")

    async def _release(self, mount_points: Sequence[str]) -> None:
        failure: AgentError | None = None
        for point in reversed(mount_points):
            entry = self._entries.get(point)
            if entry is None:
                continue
            async with entry.lock:
                if self._entries.get(point) is not entry:
                    continue  # `clear` detached it while we waited for the lock
                entry.users -= 1
                if entry.users <= 0 and not (entry.persistent and entry.committed):
                    failure = await self._detach(point, entry) or failure
        if failure is not None:
            raise failure

    async def clear(self) -> None:
        """Detach everything in reverse order and refuse new storages: the sandbox ends.

        Raises AgentError, the last failure, after all are done.
        """
        self.closed = True
        await run_to_completion(self._clear(), "clear storages")

    async def _clear(self) -> None:
        failure: AgentError | None = None
        for point, entry in reversed(list(self._entries.items())):
            async with entry.lock:
                if self._entries.get(point) is entry:
                    failure = await self._detach(point, entry) or failure
        if failure is not None:
            raise failure

    async def _detach(self, point: str, entry: StoredMount) -> AgentError | None:
        """Detach the entry and remove it from the table. Return the error, or None.

        The caller holds the entry's lock, so an `acquire` of this mount point waits until the
        detach is over.
        """
        detach, entry.detach = entry.detach, None
        try:
            if detach is not None:
                await detach()
        except AgentError as error:
            return error
        except OSError as error:
            return StepFailed("storage", f"{point}: {error.strerror}", error.errno or 0)
        finally:
            entry.users, entry.ready = 0, False
            del self._entries[point]
        return None


def grouped(requests: "Sequence[Storage]") -> "Iterator[Sequence[Storage]]":
    """Yield the storages in order, each as a group of one.

    The layers of one multi-layer root are yielded as one group, at the position of the first.
    """
    layers: dict[str, list[Storage]] = {}
    for storage in requests:
        if LAYER_OPTION in storage.options or storage.driver == LAYERS:
            layers.setdefault(storage.mount_point, []).append(storage)
    for storage in requests:
        if LAYER_OPTION not in storage.options and storage.driver != LAYERS:
            yield (storage,)
        elif storage.mount_point in layers:
            yield layers.pop(storage.mount_point)


def batches(groups: "Iterable[Sequence[Storage]]") -> "Iterator[list[Sequence[Storage]]]":
    """Yield the groups in order, those together that can be attached at once.

    These are neighbouring disks, at most AT_ONCE, none of which is mounted inside another. The
    place of any other storage may be inside one before it, and so may its source.
    """
    batch: list[Sequence[Storage]] = []
    for group in groups:
        if batch and not (len(batch) < AT_ONCE and all(_independent(group, other) for other in batch)):
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch


def _independent(one: "Sequence[Storage]", other: "Sequence[Storage]") -> bool:
    if not all(len(group) == 1 and group[0].driver in DISKS and LAYER_OPTION not in group[0].options for group in (one, other)):
        return False
    first, second = (f"{group[0].mount_point.rstrip('/')}/" for group in (one, other))
    return not first.startswith(second) and not second.startswith(first)


async def mount_storages(table: StorageManager, requests: "Sequence[Storage]", *, container_id: str = "") -> list[str]:
    """Acquire all storages, as if in order. Return their mount points, for `table.release`.

    Disks are mounted at once: the mount of each is a worker, most of whose time PID 1 waits. If one
    fails, those that were acquired are released and its error is raised.
    """
    acquired: list[str] = []

    async def acquire(group: "Sequence[Storage]") -> None:
        layers = group if len(group) > 1 or LAYER_OPTION in group[0].options else ()
        acquired.append(await table.acquire(group[0], container_id, layers))

    try:
        for batch in batches(grouped(requests)):
            async with loop.TaskGroup() as tasks:
                for group in batch:
                    tasks.spawn(acquire(group), name=f"mount {group[0].mount_point}")
    except BaseException:
        await table.release(acquired)
        raise
    return acquired
