"""A file or a folder of the host that is to be copied, without the content of its files.

Others may change it meanwhile, for example a container of runc that has the volume too. So nothing
is looked up by a path through folders that could have become links.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from innkeeper.errors import InnkeeperError

MAX_ENTRIES = 1024
"""Most files, folders and links of a folder that is copied."""
MAX_BYTES = 16 << 20
"""Most bytes of what is copied, which the guest has in its memory.

Kubernetes keeps a config map below 1 MiB.
"""
MAX_DEPTH = 32
"""Most folders in each other."""
CURRENT = "..data"
"""The link that kubelet replaces last: from then on a volume's files are the new ones."""


class ChangedError(Exception):
    """A file is another one than was seen before."""


class Version(NamedTuple):
    """What tells the contents of a file apart. All 0 for folders and links."""

    device: int = 0
    inode: int = 0
    size: int = 0
    modified: int = 0


NO_VERSION = Version()


@dataclass(frozen=True)
class Entry:
    """A file, folder or link, with a file's `version` and a link's `target`."""

    mode: int
    uid: int
    gid: int
    version: Version = NO_VERSION
    target: bytes = b""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)


Tree = dict[str, Entry]
"""Entries by their path below the source, which is "" itself.

A folder comes before what is in it.
"""


def scan(source: Path, seen: Callable[[int], None] = lambda folder: None) -> Tree:
    """Return what there is at `source`.

    `seen` is called with the descriptor of each folder before that is read. Raises InnkeeperError
    for what cannot be copied, and OSError, which is FileNotFoundError too if something vanishes
    meanwhile.
    """
    tree: Tree = {}
    size = 0
    top = os.open(source, os.O_PATH | os.O_CLOEXEC)
    try:
        for name, entry in _walk(top, seen):
            if not (stat.S_ISREG(entry.mode) or entry.is_folder or entry.is_link):
                raise InnkeeperError(f"{source / name} is neither a file, a folder nor a link: it cannot be copied into a VM")
            tree[name] = entry
            size += entry.version.size
            if len(tree) > MAX_ENTRIES or size > MAX_BYTES or name.count("/") > MAX_DEPTH:
                limits = f"{MAX_ENTRIES} files, {MAX_BYTES >> 20} MiB or {MAX_DEPTH} folders in each other"
                raise InnkeeperError(f"{source} has more than {limits}: it is too large to be copied into a VM")
    finally:
        os.close(top)
    return tree


def _walk(top: int, seen: Callable[[int], None]) -> Iterator[tuple[str, Entry]]:
    entry = _entry(os.fstat(top))
    yield "", entry
    if entry.is_folder:
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=top)
        yield from _inside(folder, "", seen)


def _inside(folder: int, prefix: str, seen: Callable[[int], None]) -> Iterator[tuple[str, Entry]]:
    """Yield what is in a folder, whose descriptor is closed at the end."""
    try:
        seen(folder)
        for name in sorted(os.listdir(folder)):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            entry = _entry(status, os.readlink(os.fsencode(name), dir_fd=folder) if stat.S_ISLNK(status.st_mode) else b"")
            yield prefix + name, entry
            if entry.is_folder:
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                yield from _inside(below, f"{prefix}{name}/", seen)
    finally:
        os.close(folder)


def _entry(status: os.stat_result, target: bytes = b"") -> Entry:
    return Entry(status.st_mode, status.st_uid, status.st_gid, _version(status), target)


def _version(status: os.stat_result) -> Version:
    if not stat.S_ISREG(status.st_mode):
        return NO_VERSION
    return Version(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def open_file(source: Path, name: str, version: Version) -> int:
    """Return a descriptor to read a file of a tree.

    Raises ChangedError if it is another one now, and OSError.
    """
    descriptor = os.open(source, os.O_PATH | os.O_CLOEXEC)
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        *folders, last = name.split("/")
        for folder in folders:
            descriptor = _replaced(descriptor, os.open(folder, os.O_PATH | os.O_DIRECTORY | flags, dir_fd=descriptor))
        where = last or f"/proc/self/fd/{descriptor}"
        descriptor = _replaced(descriptor, os.open(where, os.O_RDONLY | (flags if last else flags & ~os.O_NOFOLLOW), dir_fd=descriptor))
        if _version(os.fstat(descriptor)) != version:
            raise ChangedError
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise ChangedError from error
        raise
    return descriptor


def _replaced(old: int, new: int) -> int:
    os.close(old)
    return new


def in_order(names: list[str], tree: Tree) -> list[str]:
    """Return the names in the order in which to make them.

    What links lead to comes first, then kubelet's link to the new version.
    """
    return sorted(names, key=lambda name: (tree[name].is_link, tree[name].is_link and name.rpartition("/")[2] != CURRENT))


def vanished(old: Tree, new: Tree) -> list[str]:
    """Return what is to be removed, links first. What is in a folder goes with that."""
    gone = [name for name in old if name not in new and (parent := new.get(name.rpartition("/")[0])) and parent.is_folder]
    return sorted(gone, key=lambda name: old[name].is_folder)
