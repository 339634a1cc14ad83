"""Save the state of a VM and load it into a new QEMU, by QEMU's migration to and from a file.

The guest's memory is not part of the state: it is a file already (`x-ignore-shared`). What is
written is the state of the devices, less than a megabyte. Reference: docs/devel/migration of QEMU.
"""

import errno
import os
from pathlib import Path

from innkeeper.vm.qmp import Qmp, QmpError

CAPABILITIES = {"capabilities": [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]}
SECONDS = 60.0
"""Seconds that saving or loading may take."""
COPY_SIZE = 64 << 20


def save(qmp: Qmp, path: Path) -> None:
    """Write the state of a running VM to the new file `path`. The VM is stopped afterwards.

    It must not be stopped before: the state would say so, and each clone would stay stopped.
    Raises QmpError and OSError.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        qmp.execute("migrate-set-capabilities", CAPABILITIES)
        qmp.answer(qmp.send("getfd", {"fdname": "state"}, fd=fd), "getfd")
        qmp.execute("migrate", {"uri": "fd:state"})
        _completed(qmp, "saved")
        os.fsync(fd)
    finally:
        os.close(fd)


def start_loading(qmp: Qmp, fd: int) -> None:
    """Queue the commands that load the state from `fd`, for a QEMU that waits for it.

    QEMU inherits `fd` and reads the commands when it is up. Raises QmpError.
    """
    qmp.send("migrate-set-capabilities", CAPABILITIES)
    qmp.send("migrate-incoming", {"uri": f"fd:{fd}"})


def finish_loading(qmp: Qmp) -> None:
    """Wait until the state is loaded. Raises QmpError."""
    _completed(qmp, "loaded")


def resume(qmp: Qmp) -> None:
    """Let the processors run, and wait until they do. Raises QmpError.

    QEMU may answer and stay paused, if it cannot open a disk for writing.
    """
    qmp.execute("cont")
    qmp.event("RESUME")


def _completed(qmp: Qmp, what: str) -> None:
    while True:
        status = qmp.event("MIGRATION", seconds=SECONDS)["data"]["status"]
        if status == "completed":
            return
        if status in ("failed", "cancelled"):
            raise QmpError(f"the state of the VM could not be {what}: {status}")


def copy_memory(path: Path) -> int:
    """Return a memfd with the content of the file, holes left out. Raises OSError."""
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(source).st_size
        memory = os.memfd_create("guest-memory")
        try:
            os.ftruncate(memory, size)
            for start, end in _data(source, size):
                os.lseek(memory, start, os.SEEK_SET)
                while start < end:
                    copied = os.sendfile(memory, source, start, min(COPY_SIZE, end - start))
                    if not copied:
                        raise OSError(errno.EIO, "the file became shorter", str(path))
                    start += copied
        except BaseException:
            os.close(memory)
            raise
        return memory
    finally:
        os.close(source)


def _data(source: int, size: int) -> "list[tuple[int, int]]":
    """Return the ranges of a file that are not holes (lseek(2), SEEK_DATA)."""
    found = []
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break  # only a hole is left
            raise
        end = os.lseek(source, start, os.SEEK_HOLE)
        found.append((start, end))
    return found
