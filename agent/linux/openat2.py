"""openat2(2), and the file operations inside a container's root that are built on it.

A container's image and its processes control every component of a path inside its root. A symbolic
link there could lead to the guest's own files, and one that is swapped between a check and a use
defeats the check. So a path that an image or a spec names is resolved once, by the kernel, with
RESOLVE_IN_ROOT against the root's descriptor and with magic links refused. From then on only the
resulting descriptor is used. No other module opens paths inside a root.
"""

import ctypes
import errno
import os
import stat
import struct

from agent.linux.fd import OwnedFd
from agent.linux.libc import AT_FDCWD, call, path_bytes, s32

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

NO_LINKS = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
IN_ROOT_NO_LINKS = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS
MAX_LINKS = 40  # the kernel's own limit (path_resolution(7))


def openat2(dirfd: int, path: str | bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """Open `path` below `dirfd`, always close-on-exec (openat2(2)).

    Retries EAGAIN: a rename elsewhere in the tree causes it.
    """
    encoded = path_bytes(path)
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)  # struct open_how
    for _ in range(128):
        try:
            return call("openat2", s32(dirfd), encoded, how, ctypes.c_size_t(len(how)), path=encoded)
        except BlockingIOError:
            continue
    raise OSError(errno.EAGAIN, "openat2: the tree kept changing", os.fsdecode(encoded))


def open_in_root(root: int, path: str, flags: int = os.O_PATH, resolve: int = IN_ROOT, mode: int = 0) -> int:
    """Open `path` as a process chrooted to `root` would."""
    return openat2(root, path, flags, resolve, mode)


def open_without_links(path: str, flags: int) -> int:
    """Open an absolute path. Raises OSError ELOOP for a symbolic link anywhere in it."""
    return openat2(AT_FDCWD, path, flags, NO_LINKS)


def make_directory_in_root(root: int, path: str, mode: int = 0o755, resolve: int = IN_ROOT, links: int = 0) -> int:
    """Return a descriptor (O_PATH) of the directory `path` inside `root`.

    Makes each component that is missing. Follows symbolic links inside the root only.
    """
    try:
        return openat2(root, path, os.O_PATH | os.O_DIRECTORY, resolve)
    except FileNotFoundError:
        pass
    parent_path, name = os.path.split(path.rstrip("/"))
    if name in ("", ".", ".."):
        raise OSError(errno.ENOENT, "cannot make a directory of this name", path)
    with OwnedFd(make_directory_in_root(root, parent_path or "/", mode, resolve, links)) as parent:
        try:
            os.mkdir(name, mode, dir_fd=parent)
        except FileExistsError:
            # A link that dangles inside the root: make the directory that it points at, there.
            if resolve & RESOLVE_NO_SYMLINKS or links >= MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
            link = os.readlink(name, dir_fd=parent)
            return make_directory_in_root(root, os.path.join(parent_path or "/", link), mode, resolve, links + 1)
        return openat2(parent, name, os.O_PATH | os.O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)


def make_file_in_root(root: int, path: str, mode: int = 0o644, links: int = 0) -> int:
    """Return a descriptor (O_PATH) of the non-directory `path` inside `root`.

    A missing file is created empty, with O_EXCL. If the path is a dangling symbolic link (as
    /etc/resolv.conf on a systemd host is), the file is made where the link points, inside the root.
    """
    try:
        return openat2(root, path, os.O_PATH, IN_ROOT)
    except FileNotFoundError:
        pass
    parent_path, name = os.path.split(path.rstrip("/"))
    with OwnedFd(make_directory_in_root(root, parent_path or "/")) as parent:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
        try:
            os.close(openat2(parent, name, flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS, mode))
        except FileExistsError:
            if links >= MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
            link = os.readlink(name, dir_fd=parent)
            return make_file_in_root(root, os.path.join(parent_path or "/", link), mode, links + 1)
        return openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)


def read_regular_file(dirfd: int, path: str, limit: int, resolve: int = IN_ROOT) -> bytes:
    """Return the first `limit` bytes of a regular file, by default inside the root `dirfd`.

    Returns b"" if the file is missing or is not a regular file.
    """
    # Without O_NONBLOCK the open of a FIFO would wait for a writer.
    try:
        fd = openat2(dirfd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, resolve)
    except OSError:
        return b""
    with OwnedFd(fd):
        return os.read(fd, limit) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
