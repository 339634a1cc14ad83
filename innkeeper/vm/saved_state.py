"""Save the state of a VM and load it into a new QEMU, by QEMU's migration to and from a file.

The memory of a template is not part of its state: it is a file already (`x-ignore-shared`). What is
written is the state of the devices, less than a megabyte. The memory of a VM with a container is in
no file, so a snapshot's state has it, without the pages that are zero. Reference:
docs/devel/migration of QEMU.
"""

import errno
import fcntl
import os
import time
from pathlib import Path

from innkeeper.files import copy_sparse, data_ranges
from innkeeper.vm.qmp import Qmp, QmpError

SECONDS = 60.0
"""Seconds that saving or loading may take."""
SECONDS_WITH_MEMORY = 600.0
"""The same with all of the memory, on a slow disk."""
UNLIMITED = 1 << 40
"""Bytes per second. QEMU writes 128 MiB per second by itself, for the sake of a network."""
FICLONE = 0x40049409
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
PAGE = 4096
READ_SIZE = 2 << 20
READ_AHEAD = 128 << 10
"""Bytes that one call reads ahead at most (mm/readahead.c)."""


def save(qmp: Qmp, path: Path) -> None:
    """Write the state of a running VM to the new file `path`. The VM is stopped afterwards.

    It must not be stopped before: the state would say so, and each clone would stay stopped.
    Raises QmpError and OSError.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _migrate(qmp, fd, with_memory=False)
        os.fsync(fd)
    finally:
        os.close(fd)


def save_with_memory(qmp: Qmp, path: Path) -> None:
    """Write the state and the memory of a VM that is stopped to the new file `path`.

    It can go on afterwards (`go_on`). Raises QmpError and OSError.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        qmp.execute("migrate-set-parameters", {"max-bandwidth": UNLIMITED})
        _migrate(qmp, fd, with_memory=True)
    finally:
        os.close(fd)


def _migrate(qmp: Qmp, fd: int, *, with_memory: bool) -> None:
    qmp.execute("migrate-set-capabilities", _capabilities(with_memory))
    qmp.answer(qmp.send("getfd", {"fdname": "state"}, fd=fd), "getfd")
    qmp.execute("migrate", {"uri": "fd:state"})
    _completed(qmp, "saved", SECONDS_WITH_MEMORY if with_memory else SECONDS)


def _capabilities(with_memory: bool) -> dict[str, object]:
    """Return what both sides must set: `x-ignore-shared` changes the format, too."""
    chosen = {"x-ignore-shared": not with_memory, "events": True}
    return {"capabilities": [{"capability": name, "state": state} for name, state in chosen.items()]}


def start_loading(qmp: Qmp, fd: int, *, with_memory: bool = False) -> None:
    """Queue the commands that load the state from `fd`, for a QEMU that waits for it.

    QEMU inherits `fd` and reads the commands when it is up. Raises QmpError.
    """
    qmp.send("migrate-set-capabilities", _capabilities(with_memory))
    qmp.send("migrate-incoming", {"uri": f"fd:{fd}"})


def finish_loading(qmp: Qmp, *, with_memory: bool = False) -> None:
    """Wait until the state is loaded. Raises QmpError."""
    _completed(qmp, "loaded", SECONDS_WITH_MEMORY if with_memory else SECONDS)


def resume(qmp: Qmp) -> None:
    """Let the processors run, and wait until they do. Raises QmpError.

    QEMU may answer and stay paused, if it cannot open a disk for writing.
    """
    qmp.execute("cont")
    qmp.event("RESUME")


def go_on(qmp: Qmp) -> None:
    """Let a VM go on that was stopped or saved, or whose saving has failed. Raises QmpError.

    QEMU reports the end of a migration a moment before it permits this.
    """
    deadline = time.monotonic() + SECONDS
    while qmp.execute("query-status")["status"] == "finish-migrate" and time.monotonic() < deadline:
        time.sleep(0.002)
    resume(qmp)


def _completed(qmp: Qmp, what: str, seconds: float = SECONDS) -> None:
    while True:
        status = qmp.event("MIGRATION", seconds=seconds)["data"]["status"]
        if status == "completed":
            return
        if status in ("failed", "cancelled"):
            raise QmpError(f"the state of the VM could not be {what}: {status}")


def copy_memory(path: Path) -> int:
    """Return a memfd with the content of the file, holes left out. Raises OSError."""
    memory = os.memfd_create("guest-memory")
    try:
        with open(path, "rb") as source:
            copy_sparse(source.fileno(), memory)
    except BaseException:
        os.close(memory)
        raise
    return memory


def read_ahead(path: Path) -> None:
    """Have the file in the page cache, also its holes.

    Nothing happens if it is gone. Raises OSError. QEMU reads all of a private mapping when it saves
    the memory, while the guest stands still.
    """
    try:
        with path.open("rb") as file:
            for offset in range(0, os.fstat(file.fileno()).st_size, READ_AHEAD):
                os.posix_fadvise(file.fileno(), offset, READ_AHEAD, os.POSIX_FADV_WILLNEED)
    except FileNotFoundError:
        pass  # the template is removed by now


def copy_disk(path: Path, target: Path) -> None:
    """Copy a disk to a new file. The copy shares its blocks if the file system can do that.

    Otherwise the holes are left out (ioctl_ficlone(2)). Raises OSError.
    """
    into = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(path, "rb") as source:
            try:
                fcntl.ioctl(into, FICLONE, source.fileno())
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY):
                    raise
                copy_sparse(source.fileno(), into)
    finally:
        os.close(into)


def punch_zeros(fd: int) -> None:
    """Make holes of the pages of a file that contain only zeros (fallocate(2)). Raises OSError."""
    zeros = bytes(PAGE)
    for start, end in data_ranges(fd):
        for offset in range(start, end, READ_SIZE):
            piece = os.pread(fd, min(READ_SIZE, end - offset), offset)
            hole = None
            for at in range(0, len(piece) + PAGE, PAGE):
                if piece[at : at + PAGE] == zeros:
                    hole = at if hole is None else hole
                elif hole is not None:
                    _punch_hole(fd, offset + hole, at - hole)
                    hole = None


def _punch_hole(fd: int, offset: int, length: int) -> None:
    import ctypes  # only for who makes a template

    from innkeeper.libc import check, libc

    mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    try:
        check(libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)), "fallocate")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # a file system without holes
            raise
