"""Grow a mounted filesystem to the new size of its device.

The ioctls of ext4 and xfs (ioctl_fs(2) families).
"""

import fcntl
import os
import struct

from agent.linux.fd import OwnedFd

BLKGETSIZE64 = 0x80081272
EXT4_IOC_RESIZE_FS = 0x40086610
XFS_IOC_FSGEOMETRY_V1 = 0x80705864
XFS_IOC_FSGROWFSDATA = 0x4010586E
_XFS_GEOMETRY_BYTES = 112
_XFS_GEOMETRY = struct.Struct("=I24xI")
"""The fields blocksize and imaxpct"""


def device_bytes(node: str) -> int:
    """Return the size of a block device in bytes."""
    with OwnedFd(os.open(node, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)) as fd:
        return int(struct.unpack("=Q", fcntl.ioctl(fd, BLKGETSIZE64, bytes(8)))[0])


def grow_ext4(mount_point: str, size: int) -> None:
    """Grow an ext4 filesystem to `size` bytes, rounded down to whole blocks."""
    with OwnedFd(os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        fcntl.ioctl(fd, EXT4_IOC_RESIZE_FS, struct.pack("=Q", size // os.fstatvfs(fd).f_frsize))


def grow_xfs(mount_point: str, size: int) -> None:
    """Grow an xfs filesystem to `size` bytes, rounded down to whole blocks."""
    with OwnedFd(os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        geometry = fcntl.ioctl(fd, XFS_IOC_FSGEOMETRY_V1, bytes(_XFS_GEOMETRY_BYTES))
        block, imaxpct = _XFS_GEOMETRY.unpack_from(geometry)
        fcntl.ioctl(fd, XFS_IOC_FSGROWFSDATA, struct.pack("=QI4x", size // block, imaxpct))
