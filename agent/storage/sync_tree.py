"""Making one directory tree equal to another, while programs read it.

In each directory files and directories are copied first, symbolic links after them, and vanished
entries are removed last. A reader thus never finds a link before its target. Kubernetes updates a
config map by such a link: `..data` points at a directory with the new content.

Files are compared by size, modification time, mode and owner. All access is by descriptor, and
links are copied as links and never followed.
"""

import os
import stat

from agent.linux.fd import OwnedFd
from agent.storage import tree
from agent.storage.mountpoint import open_directory

BUFFER_SIZE = 1 << 16
TEMPORARY = ".innkeeper-new"
_HERE = os.O_CLOEXEC | os.O_NOFOLLOW


def is_small(source: int, files: int, size: int) -> bool:
    """Return whether `source` has at most `files` regular files with at most `size` bytes in all.

    `source` is an O_PATH descriptor of a directory or a regular file.
    """
    count = total = 0
    pending = [source]
    while pending:
        fd = pending.pop()
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            count, total = count + 1, total + status.st_size
        elif stat.S_ISDIR(status.st_mode):
            for name in _names(fd):
                try:
                    pending.append(os.open(name, os.O_PATH | _HERE, dir_fd=fd))
                except FileNotFoundError:
                    continue
        if fd != source:
            os.close(fd)
        if count > files or total > size:
            for rest in pending:
                os.close(rest)
            return False
    return True


def copy(source: int, target: str) -> None:
    """Make `target` equal to `source`, an O_PATH descriptor of a directory or a regular file."""
    parent_path, name = os.path.split(target)
    with OwnedFd(open_directory(parent_path)) as parent:
        if stat.S_ISDIR(os.fstat(source).st_mode):
            _copy_directory(source, parent, name)
        else:
            _copy_in_place(source, parent, name)


def _copy_directory(source: int, parent: int, name: str) -> None:
    if tree.file_type(parent, name) not in (None, stat.S_IFDIR):
        os.unlink(name, dir_fd=parent)
    if tree.file_type(parent, name) is None:
        os.mkdir(name, 0o700, dir_fd=parent)
    with OwnedFd(os.open(name, os.O_RDONLY | os.O_DIRECTORY | _HERE, dir_fd=parent)) as target:
        status = os.fstat(source)
        _copy_owner_and_mode(target, status)
        names = _names(source)
        links = [name for name in names if tree.file_type(source, name) == stat.S_IFLNK]
        for entry in (*[name for name in names if name not in links], *links):
            try:
                _copy_entry(source, target, entry)
            except FileNotFoundError:
                continue  # removed since the directory was listed
        for gone in set(_names(target)) - set(names):
            tree.remove_tree(target, gone)


def _copy_entry(source: int, target: int, name: str) -> None:
    kind = tree.file_type(source, name)
    if kind == stat.S_IFDIR:
        with OwnedFd(os.open(name, os.O_PATH | os.O_DIRECTORY | _HERE, dir_fd=source)) as below:
            _copy_directory(below, target, name)
    elif kind == stat.S_IFREG:
        _copy_file(source, target, name)
    elif kind == stat.S_IFLNK:
        _copy_link(source, target, name)


def _copy_file(source: int, target: int, name: str) -> None:
    """Copy a changed file to a temporary name and rename it, so that a reader never sees a part."""
    with OwnedFd(os.open(name, os.O_RDONLY | os.O_NONBLOCK | _HERE, dir_fd=source)) as original:
        status = os.fstat(original)
        if _unchanged(status, target, name):
            return
        with OwnedFd(os.open(TEMPORARY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _HERE, 0o600, dir_fd=target)) as fresh:
            _copy_content(original, fresh, status)
        tree.replace(target, TEMPORARY, name)


def _copy_in_place(source: int, parent: int, name: str) -> None:
    """Copy a volume that is a single file by rewriting it.

    The containers have this inode bind-mounted. After a rename they would keep the old one.
    """
    with OwnedFd(os.open(f"/proc/self/fd/{source}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as original:
        status = os.fstat(original)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(22, "is neither a file nor a directory", name)
        if _unchanged(status, parent, name):
            return
        with OwnedFd(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _HERE, 0o600, dir_fd=parent)) as target:
            _copy_content(original, target, status)


def _copy_link(source: int, target: int, name: str) -> None:
    """Copy a changed symbolic link to a temporary name and rename it."""
    wanted = os.readlink(name, dir_fd=source)
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    if tree.file_type(target, name) == stat.S_IFLNK and os.readlink(name, dir_fd=target) == wanted:
        return
    tree.unlink(target, TEMPORARY)
    os.symlink(wanted, TEMPORARY, dir_fd=target)
    os.chown(TEMPORARY, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    tree.replace(target, TEMPORARY, name)


def _copy_content(source: int, target: int, status: os.stat_result) -> None:
    """Copy the content, then owner and mode, then the times, by which `_unchanged` compares."""
    while piece := os.read(source, BUFFER_SIZE):
        while piece:
            piece = piece[os.write(target, piece) :]
    _copy_owner_and_mode(target, status)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_owner_and_mode(fd: int, status: os.stat_result) -> None:
    current = os.fstat(fd)
    if (current.st_uid, current.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(fd, status.st_uid, status.st_gid)
    if stat.S_IMODE(os.fstat(fd).st_mode) != stat.S_IMODE(status.st_mode):
        os.fchmod(fd, stat.S_IMODE(status.st_mode))


def _unchanged(status: os.stat_result, directory: int, name: str) -> bool:
    try:
        other = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return all(getattr(status, field) == getattr(other, field) for field in ("st_size", "st_mtime_ns", "st_mode", "st_uid", "st_gid"))


def _names(directory: int) -> list[str]:
    """Return the sorted names in a directory, given its O_PATH descriptor."""
    with OwnedFd(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)) as fd:
        return sorted(name for name in os.listdir(fd) if name != TEMPORARY)
