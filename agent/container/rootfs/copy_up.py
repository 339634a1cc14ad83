"""The option tmpcopyup: a new tmpfs gets the content of the directory that it covers.

It is copied before the tmpfs is mounted. Both trees are walked by descriptors. No symbolic link is
followed, nothing outside of the directory is reached, and other mounts below it are left out. A
file is copied up to the size that it had when it was opened, so a file that grows has an end too.
"""

import errno
import os
import stat

from agent.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2

CHUNK = 1 << 20
_HERE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV


def fill(source: int, target: int) -> None:
    """Copy everything below the directory `source` into the empty directory `target`.

    Both are descriptors (`source` may be O_PATH). Raises OSError.
    """
    readable = openat2(source, ".", os.O_RDONLY | os.O_DIRECTORY, 0)
    writable = openat2(target, ".", os.O_RDONLY | os.O_DIRECTORY, 0)
    try:
        for name in os.listdir(readable):
            _copy(readable, writable, name)
    finally:
        os.close(readable)
        os.close(writable)


def _copy(source: int, target: int, name: str) -> None:
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        return
    if kind == stat.S_IFDIR:
        _copy_directory(source, target, name)
    elif kind == stat.S_IFREG:
        _copy_file(source, target, name, status.st_size)
    elif kind == stat.S_IFSOCK:
        return  # it belongs to a program that listens elsewhere
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _copy_directory(source: int, target: int, name: str) -> None:
    os.mkdir(name, 0o700, dir_fd=target)
    try:
        inner = openat2(source, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, _HERE)
    except OSError as error:
        if error.errno != errno.EXDEV:  # EXDEV: something is mounted here
            raise
        return
    copy = openat2(target, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, _HERE)
    try:
        fill(inner, copy)
    finally:
        os.close(inner)
        os.close(copy)


def _copy_file(source: int, target: int, name: str, size: int) -> None:
    reading = openat2(source, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, _HERE)
    writing = openat2(target, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _HERE, 0o600)
    try:
        while size > 0:
            sent = os.sendfile(writing, reading, None, min(size, CHUNK))
            if not sent:
                return
            size -= sent
        _copy_attributes(reading, writing)
    finally:
        os.close(reading)
        os.close(writing)


def _copy_attributes(reading: int, writing: int) -> None:
    for attribute in os.listxattr(reading):
        try:
            os.setxattr(writing, attribute, os.getxattr(reading, attribute))
        except OSError as error:
            if error.errno != errno.ENOTSUP:  # ENOTSUP: tmpfs does not keep this kind of attribute
                raise
