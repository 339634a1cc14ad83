"""Locks on files, files that are replaced as a whole, copies with holes, hashes.

Uses the standard library only.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

CREATE = os.O_RDWR | os.O_CREAT
COPY_SIZE = 64 << 20
SILENT_SECONDS = 1.0
"""Seconds of waiting for a lock until a line says so."""


def lock(path: Path, *, flags: int = CREATE, shared: bool = False, wait: bool = True, work: str = "") -> int:
    """Return a descriptor that holds the lock of a file or folder, until it is closed (flock(2)).

    The kernel also drops the lock when its holder dies. `flags` are those of open(2). `work` says
    what a process does that holds the lock for long ("builds the guest"): a line of progress names
    it to the user who has to wait. Raises OSError, and without `wait` BlockingIOError if another
    process has the lock.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            with _waiting_noted(descriptor, work) if work else nullcontext():
                fcntl.flock(descriptor, operation)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _waiting_noted(descriptor: int, work: str) -> Iterator[None]:
    """Context manager: print what is waited for, if it takes longer than SILENT_SECONDS.

    A thread prints it, because flock(2) has no timeout.
    """
    from threading import Timer  # of those who wait only

    from innkeeper import progress

    def note() -> None:
        pid = _holder(descriptor)
        if pid == os.getpid():
            return  # a thread of this process, whose progress is shown already
        progress.note(f"waiting for another process{f' (pid {pid})' if pid else ''} that {work} ...")

    timer = Timer(SILENT_SECONDS, note)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # it may be reading about the descriptor, which is closed after an error


def _holder(descriptor: int) -> int | None:
    """Return the id of a process that holds the lock of an open file, or None if it is not known.

    Source: proc_locks(5). It is not known if the holder is in another pid namespace, or if the file
    system reports another device to fstat(2) than to the kernel's list (btrfs, overlayfs).
    """
    found = os.fstat(descriptor)
    file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split()  # "1: FLOCK ADVISORY WRITE 123 08:01:456 0 EOF", with "->" second for one that waits
        if len(fields) == 8 and fields[1] == "FLOCK" and fields[5] == file:
            return max(0, int(fields[4])) or None
    return None


@contextmanager
def locked(path: Path, *, wait: bool = True, work: str = "") -> Iterator[None]:
    """Context manager: hold the exclusive lock of the file `path`, which is created if needed.

    A lock file is never removed. Otherwise a process that waits for the old file and one that
    creates a new file of the same name could both hold the lock. `work`: see `lock`.
    """
    descriptor = lock(path, wait=wait, work=work)
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
    part = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
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


def copy_sparse(source: int, target: int) -> None:
    """Copy the content of one descriptor's file into the empty file of another. Holes stay holes.

    Raises OSError.
    """
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    for start, end in data_ranges(source):
        os.lseek(target, start, os.SEEK_SET)
        while start < end:
            copied = os.sendfile(target, source, start, min(COPY_SIZE, end - start))
            if not copied:
                raise OSError(errno.EIO, "the file became shorter")
            start += copied


def data_ranges(fd: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a file that are not holes (lseek(2), SEEK_DATA). Raises OSError."""
    size, end = os.fstat(fd).st_size, 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # only a hole is left
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def sha256(data: bytes) -> str:
    """Return the sha256 of `data`, in hex.

    hashlib would load OpenSSL, which takes longer than all hashes of a short command.
    """
    for module in ("_sha2", "_sha256", "hashlib"):
        try:
            return str(__import__(module).sha256(data).hexdigest())
        except ImportError:
            continue  # of another version of Python, or not built
    raise AssertionError("hashlib is always there")


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's content, in hex."""
    import hashlib  # of those who hash only: `ps` and others import this module

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
