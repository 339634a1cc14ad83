"""Operations on trees of files, most of them below a directory's descriptor.

None follows a symbolic link.
"""

import os
import stat

from agent.linux.fd import OwnedFd
from agent.linux.mount_table import mount_table
from agent.linux.openat2 import NO_LINKS, RESOLVE_NO_XDEV, openat2


def file_type(directory: int, name: str) -> int | None:
    """Return the file type (S_IFMT) of `name`, or None if it does not exist."""
    try:
        return stat.S_IFMT(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None


def unlink(directory: int, name: str) -> None:
    """Remove a file. It is no error if it does not exist."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


def replace(directory: int, temporary: str, name: str) -> None:
    """Rename `temporary` to `name`, which is replaced whatever it is.

    rename(2) cannot put a file in the place of a directory, so a directory is first removed with
    all its content.
    """
    if file_type(directory, name) == stat.S_IFDIR:
        remove_tree(directory, name)
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)


def remove_tree(parent: int, name: str) -> None:
    """Remove `name`, recursively. Raises OSError: EXDEV for a directory that is a mount point."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=parent)
        return
    with OwnedFd(openat2(parent, name, os.O_RDONLY | os.O_DIRECTORY, NO_LINKS | RESOLVE_NO_XDEV)) as directory:
        for entry in os.listdir(directory):
            remove_tree(directory, entry)
    os.rmdir(name, dir_fd=parent)


def clear_directory(path: str) -> None:
    """Remove everything below `path` except mount points. Nothing mounted there is entered."""
    _clear(path, {entry.mountpoint for entry in mount_table()})


def _clear(path: str, mounted: set[str]) -> None:
    try:
        entries = list(os.scandir(path))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.path in mounted:
            continue
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)
            continue
        _clear(entry.path, mounted)
        try:
            os.rmdir(entry.path)
        except OSError:
            pass  # not empty: a mount point below was kept
