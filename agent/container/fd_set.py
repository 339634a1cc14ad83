"""The descriptors that a plan needs until its child is forked."""

import os
from collections.abc import Sequence

from agent.linux import mount as m
from agent.linux.libc import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW
from agent.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, openat2


class FdSet:
    """The descriptors of one plan. The caller closes them after the fork, or after an error.

    With `dry` the plan is only printed: nothing is opened, and every descriptor is -1. `shared` are
    directories that others can write. Symbolic links in them are not followed out of them.
    """

    def __init__(self, dry: bool = False, shared: Sequence[str] = ()) -> None:
        self.fds: list[int] = []
        self.dry = dry
        self._shared = shared

    def add(self, fd: int) -> int:
        """Take ownership of a descriptor, and return it."""
        self.fds.append(fd)
        return fd

    def tree(self, path: str, flags: int = 0, follow: bool = True) -> int:
        """Return a detached copy of the mount at `path`. Raises OSError.

        With AT_RECURSIVE in `flags` it includes the mounts below. Without `follow` a symbolic link
        at the end of `path` is not followed.
        """
        if self.dry:
            return -1
        for root in self._shared:
            if path.startswith(f"{root}/"):
                return self.add(_tree_beneath(root, path, flags, follow))
        return self.add(m.open_tree(AT_FDCWD, path, m.OPEN_TREE_CLONE | flags | (0 if follow else AT_SYMLINK_NOFOLLOW)))

    def close_all_but(self, keep: int) -> None:
        """Close all descriptors except `keep`, which is still needed (-1: none)."""
        for fd in self.fds:
            if fd != keep:
                os.close(fd)
        self.fds = [keep] if keep in self.fds else []

    def close(self) -> None:
        """Close all descriptors. Safe to call twice."""
        self.close_all_but(-1)


def _tree_beneath(root: str, path: str, flags: int, follow: bool) -> int:
    """Return a detached copy of a mount, resolved without leaving the shared directory `root`.

    A container that has a volume in the share may leave a symbolic link there, at the name of
    another container's volume (CVE-2020-2026).
    """
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        last = 0 if follow else os.O_NOFOLLOW
        target = openat2(directory, path[len(root) :].lstrip("/"), os.O_PATH | last, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    finally:
        os.close(directory)
    try:
        return m.open_tree(target, b"", m.OPEN_TREE_CLONE | AT_EMPTY_PATH | flags)
    finally:
        os.close(target)
