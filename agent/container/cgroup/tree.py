"""Creating and removing directories of the cgroup2 hierarchy.

The directories above a container's cgroup are created as needed, each with the controllers that the
limits need.
"""

import errno
import os
from pathlib import Path

from agent import loop
from agent.errors import StepFailed

BUSY_TRIES = 100
BUSY_PAUSE = 0.01
"""The pause between two attempts to remove a cgroup, in seconds."""
DELEGATE = "/sys/kernel/cgroup/delegate"
DELEGATED = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")

_created_here: set[Path] = set()
"""The directories that this process has created.

A directory above several cgroups is removed with the last of them, whichever it was created for.
"""


def make_directories(root: Path, name: str, needed: set[str]) -> list[Path]:
    """Create the cgroup `name` and the directories above it, and enable controllers in each.

    Returns the new directories, outermost first. Raises StepFailed and then leaves none behind.
    """
    made: list[Path] = []
    current = root
    try:
        for part in name.split("/"):
            enable_controllers(current, root, needed)
            current = current / part
            try:
                current.mkdir(0o755)
                made.append(current)
                _created_here.add(current)
            except FileExistsError:
                pass
    except OSError as error:
        remove_directories(made)
        raise StepFailed("make cgroup", f"{current}: {error.strerror}", error.errno or 0) from error
    return made


def enable_missing(path: Path, made: list[Path], needed: set[str]) -> None:
    """Enable controllers for an existing cgroup.

    A controller that is not available is skipped. The write of the limit that needs it then raises
    Refused.
    """
    if needed:
        for parent in [directory.parent for directory in made] or [path.parent]:
            enable_controllers(parent, parent, needed)


def enable_controllers(directory: Path, root: Path, needed: set[str]) -> None:
    """Enable controllers for the cgroups below `directory`.

    These are the ones enabled below `root` and the ones in `needed`, as far as they are available.
    They are first enabled in one write. The kernel applies such a write completely or not at all,
    so if it fails they are written one by one. A limit that lacks its controller afterwards is
    refused by name.
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
    """Remove directories, innermost first, stopping at the first that is in use by others."""
    for path in reversed(made):
        try:
            path.rmdir()
        except OSError:
            return
        _created_here.discard(path)


def remove_parents(path: Path, made: list[Path]) -> None:
    """Remove the directories created above a removed cgroup, for it or for a neighbour.

    Stops at the first that is still in use. Raises OSError.
    """
    _created_here.discard(path)
    for parent in path.parents:
        if parent not in made and parent not in _created_here:
            return
        try:
            parent.rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                return
            raise
        _created_here.discard(parent)


async def remove_directory(path: Path) -> None:
    """Remove a cgroup without processes.

    The kernel may report it as busy for some milliseconds after the last exit, so EBUSY is retried.
    Raises OSError, and StepFailed if it stays busy.
    """
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


def delegate(cgroup: int, owner: int) -> None:
    """Give a cgroup to a user, who may then manage cgroups below it.

    Changes the owner of the directory and of the files that the kernel lists in DELEGATE. Raises
    OSError.
    """
    os.fchown(cgroup, owner, -1)
    try:
        with open(DELEGATE, encoding="ascii") as file:
            names = tuple(file.read().split())
    except FileNotFoundError:
        names = DELEGATED
    for name in names:
        try:
            os.chown(name, owner, -1, dir_fd=cgroup, follow_symlinks=False)
        except FileNotFoundError:
            continue  # the file of a controller that is not enabled here
