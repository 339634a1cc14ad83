"""Mounts of the host: make them for a guest, and undo all below a folder.

Everything that a VM sees is mounted below one folder, which is removed with it. So undoing looks at
what the kernel has there, and needs no list. A folder is removed only once nothing is mounted in
it: the source of a bind mount is the user's.
"""

import ctypes
import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from innkeeper.errors import InnkeeperError

MS_RDONLY, MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 0x1, 0x1000, 0x4000, 0x40000, 0x100000
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY = 1
SYS_MOUNT_SETATTR = 442
PAGE = 4096
"""Bytes that mount(2) takes as the options of a file system."""
FLAGS = {"rw": 0, "ro": MS_RDONLY, "bind": MS_BIND, "rbind": MS_BIND | MS_REC}
"""Options of a snapshotter's mount that are flags of mount(2). All others are data."""

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, kind: str | None, flags: int, data: str | None = None) -> None:
    """Call mount(2). Raises OSError, which names the target."""
    arguments = [None if text is None else os.fsencode(text) for text in (source, str(target), kind)]
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), None if data is None else data.encode()), target)


def mount_snapshot(kind: str, source: str, options: Sequence[str], target: Path) -> None:
    """Mount what a snapshotter of containerd asks for at `target`. Raises OSError and InnkeeperError."""
    flags = 0
    for option in options:
        flags |= FLAGS.get(option, 0)
    data = ",".join(option for option in options if option not in FLAGS)
    if len(data.encode()) >= PAGE:
        raise InnkeeperError(f"rootfs: the options of the snapshot's mount have {len(data)} characters, the kernel takes {PAGE - 1}")
    target.mkdir(parents=True, exist_ok=True)
    if not flags & MS_BIND:
        mount(source, target, kind, flags, data)
        return
    bind(Path(source), target, read_only=bool(flags & MS_RDONLY))


def bind(source: Path, target: Path, *, read_only: bool, recursive: bool = True) -> None:
    """Bind a folder, or a file, with what is mounted below it. Makes the target. Raises OSError.

    With `recursive`, what is mounted below it is read-only too. The copy is private, so that a mount
    in the guest's share never travels back to the source.
    """
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount(str(source), target, None, MS_BIND | MS_REC)
    mount("none", target, None, MS_REC | MS_PRIVATE)
    if read_only:
        attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)
        flags = AT_RECURSIVE if recursive else 0
        _check(_libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(target), flags, attributes, 32), target)


def make_shared(folder: Path) -> None:
    """Make `folder` a mount whose later submounts appear in namespaces that have a copy of it. Raises OSError.

    It gets a peer group of its own: first private, then shared.
    """
    mount(str(folder), folder, None, MS_BIND)
    mount("none", folder, None, MS_PRIVATE)
    mount("none", folder, None, MS_SHARED)


def below(folder: Path) -> list[Path]:
    """Return the mount points at and below `folder`, the latest first (proc_pid_mountinfo(5))."""
    found = []
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            point = Path(os.fsdecode(line.split()[4].decode("unicode_escape").encode("latin-1")))
            if point == folder or folder in point.parents:
                found.append(point)
    return found[::-1]


def remove(folder: Path) -> None:
    """Unmount everything at and below `folder`, and remove it. It is no error if it is not there.

    Raises OSError if something stays mounted. Two processes may do this at once.
    """
    folder = folder.parent.resolve() / folder.name
    for point in below(folder):
        if _libc.umount2(os.fsencode(point), MNT_DETACH | UMOUNT_NOFOLLOW) < 0 and ctypes.get_errno() not in (errno.EINVAL, errno.ENOENT):
            raise OSError(ctypes.get_errno(), "unmount", str(point))
    if left := below(folder):
        raise OSError(errno.EBUSY, "still mounted", str(left[0]))
    shutil.rmtree(folder, ignore_errors=True)


def _check(result: int, target: Path) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))
