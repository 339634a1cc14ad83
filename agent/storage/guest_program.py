"""Running a program of the guest image to completion."""

import os
import signal
from collections.abc import Sequence
from typing import Never

from agent.errors import Refused
from agent.linux.fd import OwnedFd
from agent.linux.process import set_parent_death_signal
from agent.worker import run_in_worker

FOLDERS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")
ENVIRONMENT = {"PATH": ":".join(FOLDERS)}
MAX_TEXT = 4096
"""Bytes of a program's standard error that a failure quotes: the last ones."""
MAX_OUTPUT = 4 << 20
EIO = 5


def find(name: str) -> str | None:
    """Return the absolute path of a guest program, or None if the image does not ship it."""
    return next((path for folder in FOLDERS if os.access(path := f"{folder}/{name}", os.X_OK)), None)


async def run_program(name: str, arguments: Sequence[str], stdin: bytes = b"", *, field: str) -> bytes:
    """Run a guest program with `stdin` as its standard input and return its standard output.

    Raises Refused, with `field`, if the image does not ship it or the output exceeds MAX_OUTPUT.
    Raises StepFailed with the end of its standard error if it exits with a status other than 0.
    """
    path = find(name)
    if path is None:
        raise Refused(field, f"this guest's image has no {name}")
    with OwnedFd(os.memfd_create("stdin")) as source, OwnedFd(os.memfd_create("stdout")) as target:
        with os.fdopen(os.dup(source), "wb") as file:
            file.write(stdin)
        os.lseek(source, 0, os.SEEK_SET)
        await run_in_worker(lambda: _run(path, [name, *arguments], source, target), name, keep=(source, target))
        if os.fstat(target).st_size > MAX_OUTPUT:
            raise Refused(field, f"{name} wrote more than {MAX_OUTPUT} bytes")
        return os.pread(target, MAX_OUTPUT, 0)


def _run(path: str, arguments: list[str], stdin: int, stdout: int) -> None:
    """Run the program, in the worker. Raises OSError with the end of its standard error."""
    read_end, write_end = os.pipe()
    worker = os.getpid()
    pid = os.fork()
    if pid == 0:
        _exec(path, arguments, (stdin, stdout, write_end), worker)
    os.close(write_end)
    text = b""
    while piece := os.read(read_end, MAX_TEXT):
        text = (text + piece)[-MAX_TEXT:]
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise OSError(EIO, f"status {status}: {text.decode(errors='replace').strip()}")


def _exec(path: str, arguments: list[str], streams: tuple[int, int, int], worker: int) -> Never:
    """Replace this process by the program, with `streams` as its descriptors 0, 1 and 2.

    It ends with its parent, the worker: a call that is given up must not go on to format a disk.
    """
    try:
        set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != worker:
            os._exit(127)  # the worker ended before the signal was set
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(path, arguments, ENVIRONMENT)
    finally:
        os._exit(127)
