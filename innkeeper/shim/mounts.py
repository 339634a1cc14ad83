"""Mounts of the host: make them for a guest, and undo all below a folder.

Everything that a VM sees is mounted below one folder, which is removed with it. So undoing looks at
what the kernel has there, and needs no list. A folder is removed only once nothing is mounted in
it: the source of a bind mount is the user's. `shared_folder` says in which mount namespace they
are.
"""

import ctypes
import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from innkeeper.errors import InnkeeperError
from innkeeper.libc import check, libc

MS_RDONLY, MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 0x1, 0x1000, 0x4000, 0x40000, 0x80000, 0x100000
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH = 1, 4
MOUNT_ATTR_RDONLY = 1
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442
"""Numbers of system calls, which all architectures share."""
PAGE = 4096
"""Bytes that mount(2) takes as the options of a file system."""
FLAGS = {"rw": 0, "ro": MS_RDONLY, "bind": MS_BIND, "rbind": MS_BIND | MS_REC}
"""Options of a snapshotter's mount that are flags of mount(2). All others are data."""


def mount(source: str, target: Path, kind: str | None, flags: int, data: str | None = None) -> None:
    """Call mount(2). Raises OSError, which names the target."""
    arguments = [None if text is None else os.fsencode(text) for text in (source, str(target), kind)]
    check(libc.mount(*arguments, ctypes.c_ulong(flags), None if data is None else data.encode()), path=target)


def mount_snapshot(kind: str, source: str, options: Sequence[str], target: Path) -> None:
    """Mount what a snapshotter of containerd asks for at `target`.

    Raises OSError and InnkeeperError.
    """
    flags = 0
    for option in options:
        flags |= FLAGS.get(option, 0)
    data = ",".join(option for option in options if option not in FLAGS)
    if len(data.encode()) >= PAGE:
        raise InnkeeperError(f"rootfs: the options of the snapshot's mount have {len(data)} characters, the kernel takes {PAGE - 1}")
    if not flags & MS_BIND:
        mount(source, target, kind, flags, data)
        return
    tree = clone(Path(source))
    try:
        if flags & MS_RDONLY:
            set_read_only(tree, target, recursive=True)
        attach(tree, target)
    finally:
        os.close(tree)


def clone(path: Path) -> int:
    """Return the descriptor of a copy of what is mounted at and below `path`.

    The copy is mounted nowhere. Raises OSError. See open_tree(2), Linux 5.2. It is gone when the
    descriptor is closed, unless it was attached.
    """
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | AT_RECURSIVE
    return check(libc.syscall(SYS_OPEN_TREE, AT_FDCWD, os.fsencode(path), flags), path=path)


def set_propagation(tree: int, propagation: int, path: Path) -> None:
    """Set the propagation of all mounts of a `clone` of `path`. Raises OSError."""
    _set_attributes(tree, path, propagation=propagation)


def set_read_only(tree: int, path: Path, *, recursive: bool) -> None:
    """Make a `clone` of `path` read-only, with `recursive` all its mounts. Raises OSError."""
    _set_attributes(tree, path, set=MOUNT_ATTR_RDONLY, flags=AT_RECURSIVE if recursive else 0)


def _set_attributes(tree: int, path: Path, *, set: int = 0, propagation: int = 0, flags: int = AT_RECURSIVE) -> None:
    """Call mount_setattr(2) (Linux 5.12)."""
    attributes = (ctypes.c_uint64 * 4)(set, 0, propagation, 0)
    check(libc.syscall(SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH | flags, attributes, ctypes.sizeof(attributes)), path=path)


def attach(tree: int, target: Path) -> None:
    """Mount a `clone` at `target`, though it be of another mount namespace. Raises OSError."""
    check(libc.syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH), path=target)


def make_shared(folder: Path) -> None:
    """Make `folder` a mount whose later submounts appear in namespaces that have a copy of it.

    Raises OSError. It gets a peer group of its own: first private, then shared.
    """
    mount(str(folder), folder, None, MS_BIND)
    mount("none", folder, None, MS_PRIVATE)
    mount("none", folder, None, MS_SHARED)


def source_mode(source: Path, field: str) -> int:
    """Return the mode of what is to be mounted. Raises InnkeeperError that names the field."""
    try:
        return os.stat(source).st_mode
    except OSError as error:
        raise InnkeeperError(f"{field}: {source}: {error.strerror}") from error


class Mount(NamedTuple):
    """A line of proc_pid_mountinfo(5): a folder of a file system, where it is, and the flags.

    `flags` are the mount's, `options` the file system's.
    """

    device: str
    root: str
    point: Path
    flags: frozenset[str]
    kind: str
    options: frozenset[str]


def all_mounts() -> list[Mount]:
    """Return the mounts in the calling thread's namespace, the latest last."""
    return parse(Path("/proc/thread-self/mountinfo").read_bytes())


def parse(mountinfo: bytes) -> list[Mount]:
    """Return the mounts in the text of proc_pid_mountinfo(5)."""
    found = []
    for line in mountinfo.split(b"\n")[:-1]:
        words = [os.fsdecode(word.decode("unicode_escape").encode("latin-1")) for word in line.split(b" ")]
        kind, _, text, *_ = words[words.index("-", 6) + 1 :]
        flags, options = (frozenset(part.split(",")) for part in (words[5], text))
        found.append(Mount(words[2], words[3], Path(words[4]), flags=flags, kind=kind, options=options))
    return found


def below(folder: Path) -> list[Path]:
    """Return the mount points at and below `folder` in this thread's namespace, latest first."""
    return [mount.point for mount in reversed(all_mounts()) if mount.point == folder or folder in mount.point.parents]


def unmount(folder: Path) -> None:
    """Unmount everything at and below `folder`.

    Two processes may do this at once. Raises OSError if something stays mounted.
    """
    folder = folder.parent.resolve() / folder.name
    for point in below(folder):
        try:
            check(libc.umount2(os.fsencode(point), MNT_DETACH | UMOUNT_NOFOLLOW), "unmount", point)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
    if left := below(folder):
        raise OSError(errno.EBUSY, "still mounted", str(left[0]))


def remove(folder: Path) -> None:
    """Unmount everything at and below `folder`, and remove it. It is no error if it is not there.

    Raises OSError if something stays mounted. Two processes may do this at once.
    """
    unmount(folder)
    shutil.rmtree(folder, ignore_errors=True)
