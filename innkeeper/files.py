"""Locks on files, and files that are replaced as a whole. Uses the standard library only."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CREATE = os.O_RDWR | os.O_CREAT


def lock(path: Path, *, flags: int = CREATE, shared: bool = False, wait: bool = True) -> int:
    """Return a descriptor that holds the lock of a file or folder, until it is closed (flock(2)).

    The kernel also drops the lock when its holder dies. `flags` are those of open(2). Raises
    OSError, and without `wait` BlockingIOError if another process has the lock.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Context manager: hold the exclusive lock of the file `path`, which is created if needed.

    A lock file is never removed. Otherwise a process that waits for the old file and one that
    creates a new file of the same name could both hold the lock.
    """
    descriptor = lock(path, wait=wait)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Context manager: yield a temporary file beside `path` that takes its place at the end.

    Other processes see all of it or nothing. It is not named by process id, since pid namespaces
    may share a folder.
    """
    import tempfile  # of those who write only: `ps` takes locks

    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    part = Path(name)
    try:
        yield part
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Write the names in `folder` to disk, as after a rename."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
