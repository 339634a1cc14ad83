"""Directories of the cgroup2 hierarchy: made on the way to a container's group, with the controllers its limits need, and removed."""

import errno
import os
from pathlib import Path

from agent import loop
from agent.errors import StepFailed

BUSY_TRIES = 100
BUSY_PAUSE = 0.01
"""seconds"""
DELEGATE = "/sys/kernel/cgroup/delegate"
DELEGATED = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")

_ours: set[Path] = set()
"""What this process has made: a directory above several groups goes with the last of them, whichever it was made for."""


def make_directories(root: Path, name: str, needed: set[str]) -> list[Path]:
    """The group's directory and those above it, each with its controllers enabled; the new ones, outermost first."""
    made: list[Path] = []
    current = root
    try:
        for part in name.split("/"):
            enable_controllers(current, root, needed)
            current = current / part
            try:
                current.mkdir(0o755)
                made.append(current)
                _ours.add(current)
            except FileExistsError:
                pass
    except OSError as error:
        remove_directories(made)
        raise StepFailed("make cgroup", f"{current}: {error.strerror}", error.errno or 0) from error
    return made


def enable_missing(path: Path, made: list[Path], needed: set[str]) -> None:
    """Enable controllers for a group that was made before they were needed; one that cannot be had is refused by whoever needs it."""
    if needed:
        for parent in [directory.parent for directory in made] or [path.parent]:
            enable_controllers(parent, parent, needed)


def enable_controllers(directory: Path, root: Path, needed: set[str]) -> None:
    """Enable for the groups below `directory` what is enabled below `root`, and what is needed and there.

    One write of all, then one by one, so that one that cannot be enabled does not keep out the rest; a limit that then lacks its
    controller is refused by name.
    """
    enabled = set((directory / "cgroup.subtree_control").read_text().split())
    wanted = needed if directory == root else needed | set((root / "cgroup.subtree_control").read_text().split())
    missing = wanted & set((directory / "cgroup.controllers").read_text().split()) - enabled
    if not missing:
        return
    control = directory / "cgroup.subtree_control"
    try:
        control.write_text(" ".join([f"+{name}" for name in sorted(missing)]))
    except OSError:
        for name in sorted(missing):
            try:
                control.write_text(f"+{name}")
            except OSError:
                continue


def remove_directories(made: list[Path]) -> None:
    """Remove groups that we made, innermost first; one that others use meanwhile stays."""
    for path in reversed(made):
        try:
            path.rmdir()
        except OSError:
            return
        _ours.discard(path)


def remove_parents(path: Path, made: list[Path]) -> None:
    """Remove what was made above a group that is gone, for it or for a neighbour; what others use stays. Raises OSError."""
    _ours.discard(path)
    for parent in path.parents:
        if parent not in made and parent not in _ours:
            return
        try:
            parent.rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                return
            raise
        _ours.discard(parent)


async def remove_directory(path: Path) -> None:
    """Remove a group without processes; for some milliseconds after the last exit it may still count as busy. Raises OSError."""
    for _ in range(BUSY_TRIES):
        try:
            os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        await loop.sleep(BUSY_PAUSE)
    raise StepFailed("remove cgroup", f"{path}: {os.strerror(errno.EBUSY)}", errno.EBUSY)


def delegate(group: int, owner: int) -> None:
    """Give a group to a user, who may then manage groups below it: its directory, and the files that the kernel lists for that."""
    os.fchown(group, owner, -1)
    try:
        with open(DELEGATE, encoding="ascii") as file:
            names = tuple(file.read().split())
    except FileNotFoundError:
        names = DELEGATED
    for name in names:
        try:
            os.chown(name, owner, -1, dir_fd=group, follow_symlinks=False)
        except FileNotFoundError:
            continue  # of a controller that is not enabled here
