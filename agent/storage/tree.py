"""File operations relative to a directory's descriptor. None of them follows a symbolic link."""

import os
import stat

from agent.linux.fd import OwnedFd
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
