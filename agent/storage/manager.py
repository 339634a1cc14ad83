"""The sandbox's storages: which are there, and how many use each."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from agent import loop
from agent.carried import carried
from agent.errors import AgentError, Refused, StepFailed, Unimplemented, WrongState
from agent.storage import ephemeral, local, virtio_fs
from agent.storage.driver import Context, Detach, Driver
from agent.storage.mountpoint import check_path

if TYPE_CHECKING:
    from agent.device.watch import DeviceWatch
    from innkeeper.wire.pb.agent_pb2 import Storage

LAYERS = "erofs.multi-layer"
DRIVERS: Mapping[str, Driver | str] = {
    "virtio-fs": virtio_fs,
    "ephemeral": ephemeral,
    "local": local,
    "9p": "agent.storage.nine_p",
    "bind": "agent.storage.bind",
    "blk": "agent.storage.blk",
    "mmioblk": "agent.storage.mmioblk",
    "nvdimm": "agent.storage.nvdimm",
    "overlayfs": "agent.storage.overlayfs",
    "scsi": "agent.storage.scsi",
    "watchable-bind": "agent.storage.watchable",
    LAYERS: "agent.storage.erofs_layers",
}
"""Name -> module; those that not every pod has by name, to be imported when they are first asked for."""
ABSENT = {
    "image_guest_pull": "images are pulled on the host: there is no Confidential Data Hub in this guest",
    "blk-ccw": "the channel subsystem is s390x's",
}
"""Drivers of the contract that are not served -> why."""
OF_LAYERS = "X-kata.multi-layer=true"
"""The option that marks a storage as one of several that make a root."""


def driver_of(name: str) -> Driver:
    """The module that serves a driver. Raises Refused, Unimplemented."""
    if name in ABSENT:
        raise Unimplemented(f"storage.driver: {name} is not served: {ABSENT[name]}")
    driver = DRIVERS.get(name)
    if driver is None:
        raise Refused("storage.driver", f"Failed to find the storage handler {name}")
    if isinstance(driver, str):
        __import__(driver)
        driver = sys.modules[driver]
    return driver


class Entry:
    """A storage in place (`ready`), being put there, or being taken away: all of it under `lock`, and in the table until it is over.

    One that `stays` is taken away at the sandbox's end only, once it is `settled`: a container that uses it has come into being.
    """

    __slots__ = ("detach", "lock", "ready", "settled", "stays", "users")

    def __init__(self) -> None:
        self.users = 0
        self.stays = False
        self.settled = False
        self.detach: Detach | None = None
        self.ready = False
        self.lock = loop.Lock()


class StorageTable:
    """Counted by mount point: a second request for one that is there only counts, and for one that is going waits and begins anew.

    Taking away is done by tasks of the table's own: whoever asked for it may be cancelled meanwhile, by a client's deadline say.
    """

    def __init__(self, devices: "DeviceWatch") -> None:
        self.devices = devices
        self.closed = False
        self._entries: dict[str, Entry] = {}

    def users(self, mount_point: str) -> int:
        """How many use this mount point; 0 if there is none."""
        entry = self._entries.get(mount_point)
        return entry.users if entry else 0

    async def acquire(self, storage: "Storage", container_id: str = "", layers: "Sequence[Storage]" = ()) -> str:
        """Put the storage in place, or count one more user. Returns its mount point, the key to release it. WrongState after `clear`.

        `layers` are all storages of a root that is made of several, `storage` the first of them.
        """
        driver = driver_of(LAYERS if layers else storage.driver)
        check_path("storage.mount_point", storage.mount_point)
        point = storage.mount_point.rstrip("/")
        while True:
            if self.closed:
                raise WrongState(f"storage {point}: the sandbox is at its end")
            entry = self._entries.setdefault(point, Entry())
            async with entry.lock:
                if self._entries.get(point) is not entry:
                    continue  # it has gone while we waited
                try:
                    if not entry.ready:
                        await self._attach(driver, storage, entry, Context(self.devices, container_id, layers))
                finally:
                    if not entry.ready:
                        del self._entries[point]
                entry.users += 1
                return point

    async def _attach(self, driver: Driver, storage: "Storage", entry: Entry, context: Context) -> None:
        try:
            entry.detach = await driver.attach(storage, context)
        except TimeoutError as error:
            raise StepFailed("storage", str(error)) from None
        if storage.HasField("fs_group"):
            await self._give_to_group(storage, entry)
        entry.stays = storage.shared or getattr(driver, "STAYS", False)
        entry.ready = True

    async def _give_to_group(self, storage: "Storage", entry: Entry) -> None:
        from agent.storage import fs_group

        try:
            await fs_group.apply(storage)
        except BaseException:
            if entry.detach is not None:
                await entry.detach()
            raise

    def settle(self, mount_points: Sequence[str]) -> None:
        """The container that these are for has come into being."""
        for point in mount_points:
            if point in self._entries:
                self._entries[point].settled = True

    async def release(self, mount_points: Sequence[str]) -> None:
        """One user less of each, last first; what nobody uses is taken away, unless it stays until `clear`. Raises AgentError.

        Once begun it is carried to its end, also if the caller is cancelled.
        """
        if mount_points:
            await carried(self._release(tuple(mount_points)), f"release {mount_points[0]}")

    async def _release(self, mount_points: Sequence[str]) -> None:
        failure: AgentError | None = None
        for point in reversed(mount_points):
            entry = self._entries.get(point)
            if entry is None:
                continue
            async with entry.lock:
                if self._entries.get(point) is not entry:
                    continue  # `clear` was before us
                entry.users -= 1
                if entry.users <= 0 and not (entry.stays and entry.settled):
                    failure = await self._detach(point, entry) or failure
        if failure is not None:
            raise failure

    async def clear(self) -> None:
        """Take everything away, last first, and let nothing new come. The sandbox is at its end. Raises AgentError."""
        self.closed = True
        await carried(self._clear(), "clear storages")

    async def _clear(self) -> None:
        failure: AgentError | None = None
        for point, entry in reversed(list(self._entries.items())):
            async with entry.lock:
                if self._entries.get(point) is entry:
                    failure = await self._detach(point, entry) or failure
        if failure is not None:
            raise failure

    async def _detach(self, point: str, entry: Entry) -> AgentError | None:
        """With the entry's lock held: who comes for this mount point waits until nothing of it is left."""
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
    """The storages in their order; those that make one root together come as one group, where the first of them stands."""
    layers: dict[str, list[Storage]] = {}
    for storage in requests:
        if OF_LAYERS in storage.options or storage.driver == LAYERS:
            layers.setdefault(storage.mount_point, []).append(storage)
    for storage in requests:
        if OF_LAYERS not in storage.options and storage.driver != LAYERS:
            yield (storage,)
        elif storage.mount_point in layers:
            yield layers.pop(storage.mount_point)


async def mount_storages(table: StorageTable, requests: "Sequence[Storage]", *, container_id: str = "") -> list[str]:
    """Acquire all, in order; returns the mount points for `table.release`. If one fails, those before it are released."""
    acquired: list[str] = []
    try:
        for group in grouped(requests):
            layers = group if len(group) > 1 or OF_LAYERS in group[0].options else ()
            acquired.append(await table.acquire(group[0], container_id, layers))
    except BaseException:
        await table.release(acquired)
        raise
    return acquired
