"""Handlers of the calls about mounted volumes: statistics, growth, size of tmpfs."""

import os
import stat
import struct
from typing import TYPE_CHECKING

from agent.errors import Refused
from agent.linux import resize_fs
from agent.linux.fd import OwnedFd
from agent.linux.mount import reconfigure, set_attributes
from agent.linux.openat2 import open_without_links
from agent.storage import ephemeral
from agent.storage.driver import refuse_driver_options
from agent.storage.mounted import mounted_type
from agent.storage.mountpoint import check_path
from agent.storage.options import Options, parse
from agent.worker import run_in_worker
from innkeeper.wire.pb.csi_pb2 import VolumeCondition, VolumeStatsResponse, VolumeUsage
from innkeeper.wire.pb.empty_pb2 import Empty

if TYPE_CHECKING:
    from agent.sandbox import Sandbox
    from agent.service.dispatcher import Handlers
    from innkeeper.wire.pb import agent_pb2

FIELD = "volume_guest_path"
_STATISTICS = struct.Struct("=6Q")
_GROW = {"ext4": resize_fs.grow_ext4, "xfs": resize_fs.grow_xfs}


async def get_volume_stats(sandbox: "Sandbox", request: "agent_pb2.VolumeStatsRequest") -> VolumeStatsResponse:
    """Return the space and the inodes of a volume, or the size of a raw block device.

    The work is done in a worker: the volume may be a share, and its host may be slow.
    """
    path = request.volume_guest_path
    check_path(FIELD, path)
    statistics = await run_in_worker(lambda: _statistics(path), f"statvfs {path}")
    total, free, available, inodes, inodes_free, inodes_available = _STATISTICS.unpack(statistics)
    usage = [VolumeUsage(unit=VolumeUsage.BYTES, total=total, used=total - free, available=available)]
    if inodes:
        usage.append(VolumeUsage(unit=VolumeUsage.INODES, total=inodes, used=inodes - inodes_free, available=inodes_available))
    return VolumeStatsResponse(usage=usage, volume_condition=VolumeCondition(abnormal=False, message=""))


def _statistics(path: str) -> bytes:
    """Return the statistics of statvfs(3), packed for the pipe of the worker."""
    if stat.S_ISBLK(os.stat(path).st_mode):
        size = resize_fs.device_bytes(path)
        return _STATISTICS.pack(size, 0, 0, 0, 0, 0)
    found = os.statvfs(path)
    unit = found.f_frsize
    return _STATISTICS.pack(
        found.f_blocks * unit, found.f_bfree * unit, found.f_bavail * unit, found.f_files, found.f_ffree, found.f_favail
    )


async def resize_volume(sandbox: "Sandbox", request: "agent_pb2.ResizeVolumeRequest") -> Empty:
    """Grow a mounted ext4 or xfs to `size` bytes. The host has enlarged the device before.

    Raises Refused for another file system, or StepFailed.
    """
    path = request.volume_guest_path
    check_path(FIELD, path)
    filesystem = mounted_type(path)
    if filesystem is None:
        raise Refused(FIELD, f"nothing is mounted at {path}")
    work = _GROW.get(filesystem)
    if work is None:
        raise Refused(FIELD, f"{path} is {filesystem}; only {' and '.join(sorted(_GROW))} grow while mounted")
    if not request.size:
        raise Refused("size", "is 0")
    await run_in_worker(lambda: work(path.rstrip("/"), request.size), f"grow {path}")
    return Empty()


async def update_ephemeral_mounts(sandbox: "Sandbox", request: "agent_pb2.UpdateEphemeralMountsRequest") -> Empty:
    """Change the options of mounted tmpfs volumes, above all their size.

    All changes are checked before the first one is applied. Raises Refused or OSError.
    """
    changes = [_change(storage) for storage in request.storages]
    for path, options in changes:
        with OwnedFd(open_without_links(path, os.O_PATH | os.O_DIRECTORY)) as target:
            reconfigure(target, tuple((key.encode(), None if value is None else value.encode()) for key, value in options.data))
            if options.attributes or options.cleared:
                set_attributes(target, options.attributes, options.cleared)
    return Empty()


def _change(storage: "agent_pb2.Storage") -> tuple[str, Options]:
    """Return the path and the new options of a volume. Raises Refused."""
    if storage.driver != ephemeral.NAME:
        raise Refused("storages.driver", f"{storage.driver!r}: only {ephemeral.NAME} storages can be updated")
    refuse_driver_options(storage)
    check_path("storages.mount_point", storage.mount_point)
    options = parse(storage.options)
    if not options.remount:
        raise Refused("storages.options", "remount is missing: an update changes what is there")
    if mounted_type(storage.mount_point) != "tmpfs":
        raise Refused("storages.mount_point", f"no tmpfs is mounted at {storage.mount_point}")
    # fsgid was applied when the volume was made. Its files belong to the pod now.
    return storage.mount_point, options._replace(data=tuple(item for item in options.data if item[0] != "fsgid"))


METHODS: "Handlers" = {
    "GetVolumeStats": get_volume_stats,
    "ResizeVolume": resize_volume,
    "UpdateEphemeralMounts": update_ephemeral_mounts,
}
