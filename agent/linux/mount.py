"""The file-descriptor mount calls, pivot_root(2) and umount2(2).

open_tree(2), move_mount(2), mount_setattr(2), fsopen(2) and its family. Every mount of a container
is built detached, then given its attributes, and only then attached, by descriptor. So nobody sees
a mount without its attributes, and no path is resolved twice.
"""

import ctypes
import errno
import os
import struct

from agent.linux.fd import OwnedFd
from agent.linux.libc import AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE, call, failure, get_errno, path_bytes, raw, s32, u32
from agent.linux.libc import NUMBERS as _NUMBERS

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSCONFIG_CMD_RECONFIGURE = 7
FSPICK_CLOEXEC = 1
FSPICK_EMPTY_PATH = 8

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x00
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x00100000
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000

MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_DETACH = 2
INT_MAX = (1 << 31) - 1
UMOUNT_NOFOLLOW = 8

PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
DEVPTS_SUPER_MAGIC = 0x1CD1
CGROUP2_SUPER_MAGIC = 0x63677270
RAMFS_MAGIC = 0x858458F6
TMPFS_MAGIC = 0x01021994


_MOUNT_ATTR = struct.Struct("=4Q")
"""`struct mount_attr`: attr_set, attr_clr, propagation, userns_fd"""


def open_tree(dirfd: int, path: str | bytes, flags: int) -> int:
    """Return a close-on-exec descriptor of the mount object at `path`.

    With OPEN_TREE_CLONE it is a detached copy of the mount.
    """
    encoded = path_bytes(path)
    return call("open_tree", s32(dirfd), encoded, u32(flags | OPEN_TREE_CLOEXEC), path=encoded)


def clone_tree(fd: int, recursive: bool = False) -> int:
    """Return a detached copy of the mount that `fd` is on, from `fd`'s directory downwards."""
    return open_tree(fd, b"", OPEN_TREE_CLONE | AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0))


def move_mount(mount_fd: int, target_fd: int, path: str | bytes = b"") -> None:
    """Attach the detached mount `mount_fd` onto the object that `target_fd` refers to.

    `path` is for the error message only.
    """
    call(
        "move_mount",
        s32(mount_fd),
        b"",
        s32(target_fd),
        b"",
        u32(MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH),
        path=path,
    )


def move_mount_path(mount_fd: int, path: str | bytes) -> None:
    """Attach the detached mount `mount_fd` at a path in the caller's mount namespace."""
    encoded = path_bytes(path)
    call("move_mount", s32(mount_fd), b"", s32(AT_FDCWD), encoded, u32(MOVE_MOUNT_F_EMPTY_PATH), path=encoded)


def mount_setattr(fd: int, path: str | bytes, flags: int, set_: int = 0, clear: int = 0, propagation: int = 0, userns_fd: int = 0) -> None:
    """Change attributes (MOUNT_ATTR_*) or propagation (MS_*) of the mount at `path` below `fd`.

    With AT_RECURSIVE in `flags` it changes all mounts below as well.
    """
    encoded = path_bytes(path)
    attr = _MOUNT_ATTR.pack(set_, clear, propagation, userns_fd)
    call("mount_setattr", s32(fd), encoded, u32(flags), attr, ctypes.c_size_t(len(attr)), path=encoded)


def set_attributes(fd: int, set_: int = 0, clear: int = 0, recursive: bool = False) -> None:
    """Change attributes of the mount that `fd` itself refers to (mount_setattr(2))."""
    mount_setattr(fd, b"", AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0), set_, clear)


def set_propagation(fd: int, propagation: int, recursive: bool = False) -> None:
    """Set the propagation of the mount that `fd` itself refers to.

    `propagation` is MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE.
    """
    mount_setattr(fd, b"", AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0), propagation=propagation)


def set_idmap(fd: int, userns_fd: int, recursive: bool = False) -> None:
    """Translate owners on a detached mount by the mappings of a user namespace."""
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    mount_setattr(fd, b"", flags, MOUNT_ATTR_IDMAP, userns_fd=userns_fd)


def knows_attribute(set_: int, clear: int = 0) -> bool:
    """Return whether the kernel accepts a change of these MOUNT_ATTR_* bits.

    Changes nothing: the descriptor is invalid. The kernel checks the bits first (EINVAL) and the
    descriptor only after that (EBADF).
    """
    attr = _MOUNT_ATTR.pack(set_, clear, 0, INT_MAX)
    raw(_NUMBERS["mount_setattr"], s32(-1), b"", u32(AT_EMPTY_PATH), attr, ctypes.c_size_t(len(attr)))
    return get_errno() == errno.EBADF


def fsopen(filesystem: str | bytes) -> int:
    """Return a configuration context for a new mount of `filesystem` (fsopen(2))."""
    encoded = path_bytes(filesystem)
    return call("fsopen", encoded, u32(FSOPEN_CLOEXEC), path=encoded)


_COMMANDS = {FSCONFIG_CMD_CREATE: b"create", FSCONFIG_CMD_RECONFIGURE: b"reconfigure"}


def _fsconfig(fd: int, command: int, key: bytes | None, value: bytes | None) -> None:
    if raw(_NUMBERS["fsconfig"], s32(fd), u32(command), key, value, s32(0)) == -1:
        name = _COMMANDS[command] if key is None else key if value is None else key + b"=" + value
        error = failure("fsconfig", name)
        error.strerror = f"{error.strerror}{_context_log(fd)}"
        raise error


def _context_log(fd: int) -> str:
    """Return the filesystem's messages about the failure, or an empty string.

    The context is readable like a log: each read(2) returns one message (fsopen(2)).
    """
    messages = []
    while True:
        try:
            line = os.read(fd, 512)
        except OSError as error:
            if error.errno == errno.EINTR:
                continue
            break
        if not line:
            break
        messages.append(line.decode("utf-8", "replace").strip())
    return f" ({'; '.join(messages)})" if messages else ""


def new_mount(filesystem: bytes, options: "tuple[tuple[bytes, bytes | None], ...]", attributes: int = 0) -> int:
    """Return a descriptor of a detached mount of a new `filesystem` instance.

    Options are (key, value) pairs, with None as the value of a bare word. The caller owns the
    descriptor. Raises OSError with the filesystem's messages.
    """
    with OwnedFd(fsopen(filesystem)) as context:
        for key, value in options:
            _fsconfig(context, FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING, key, value)
        _fsconfig(context, FSCONFIG_CMD_CREATE, None, None)
        return call("fsmount", s32(context), u32(FSMOUNT_CLOEXEC), u32(attributes), path=filesystem)


def mount_at(path: str, filesystem: bytes, options: "tuple[tuple[bytes, bytes | None], ...]" = (), attributes: int = 0) -> None:
    """Mount a new `filesystem` instance at a path; see `new_mount`."""
    with OwnedFd(new_mount(filesystem, options, attributes)) as mount:
        move_mount_path(mount, path)


def reconfigure(fd: int, options: "tuple[tuple[bytes, bytes | None], ...]") -> None:
    """Change options of the filesystem that `fd`'s mount shows (fspick(2)).

    Raises OSError with the filesystem's messages.
    """
    with OwnedFd(call("fspick", s32(fd), b"", u32(FSPICK_CLOEXEC | FSPICK_EMPTY_PATH))) as context:
        for key, value in options:
            _fsconfig(context, FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING, key, value)
        _fsconfig(context, FSCONFIG_CMD_RECONFIGURE, None, None)


def pivot_root(new_root: str | bytes, put_old: str | bytes) -> None:
    """Make `new_root` the root mount of the caller's mount namespace (pivot_root(2))."""
    call("pivot_root", path_bytes(new_root), path_bytes(put_old), path=new_root)


def umount2(path: str | bytes, flags: int = 0) -> None:
    """Unmount `path` (umount2(2))."""
    encoded = path_bytes(path)
    call("umount2", encoded, s32(flags), path=encoded)


def filesystem_magic(fd: int) -> int:
    """Return `f_type` of the filesystem that `fd` is on (statfs(2))."""
    buffer = ctypes.create_string_buffer(256)
    call("fstatfs", s32(fd), buffer)
    return int(struct.unpack_from("l", buffer)[0])  # the first field of struct statfs
