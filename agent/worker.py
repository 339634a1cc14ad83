"""Work that may take long, in a forked child: PID 1 waits by descriptor and never blocks.

The child inherits everything imported and imports nothing. Its outcome comes back through a pipe; its end is seen by pidfd, so
that whoever reaps it does no harm.
"""

import os
import signal
import struct
from collections.abc import Callable, Sequence
from typing import Never

from agent import loop
from agent.errors import AgentError, StepFailed
from agent.linux.process import close_all_but, pidfd_send_signal
from agent.linux.reaper import Child, reaper

CHUNK = 65536
MAX_OUTCOME = 1 << 20
DONE, FAILED, REFUSED = b"D", b"E", b"R"


async def run_in_worker(work: Callable[[], bytes | None], name: str, keep: Sequence[int] = (), given: Sequence[int] = ()) -> bytes:
    """Run `work` in a forked child and return its bytes (at most 1 MiB).

    `keep` are the descriptors that it uses, `given` those that are its own from now on and are closed here; it closes all others. What
    it raises becomes StepFailed(name, text, errno). A task that is cancelled kills the child.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _child(work, write_end, (*keep, *given))
    for fd in (write_end, *given):
        os.close(fd)
    pidfd = os.pidfd_open(pid)
    child = reaper.adopt(pid, pidfd)
    os.set_blocking(read_end, False)
    try:
        outcome = await _read_all(read_end)
    except BaseException:
        _kill(pidfd)
        loop.spawn(_collect(child), name=f"{name} killed")
        raise
    finally:
        os.close(read_end)
    return _result(outcome, name, await _collect(child))


def _child(work: Callable[[], bytes | None], write_end: int, keep: Sequence[int]) -> Never:
    """Never returns into the parent's loop."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, signal.SIG_DFL)
        close_all_but(sorted({write_end, *keep}))
        outcome = _attempt(work)
        while outcome:
            outcome = outcome[os.write(write_end, outcome) :]
        status = 0
    finally:
        os._exit(status)


def _attempt(work: Callable[[], bytes | None]) -> bytes:
    try:
        return DONE + (work() or b"")
    except AgentError as error:
        return REFUSED + struct.pack("=i", error.code) + str(error).encode(errors="replace")
    except OSError as error:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        return FAILED + struct.pack("=i", error.errno or 0) + text.encode(errors="replace")
    except Exception as error:  # noqa: BLE001 - the edge of a process: the parent raises it again
        return FAILED + struct.pack("=i", 0) + f"{type(error).__name__}: {error}".encode(errors="replace")


async def _read_all(fd: int) -> bytes:
    data = b""
    while len(data) <= MAX_OUTCOME:
        await loop.readable(fd)
        try:
            piece = os.read(fd, CHUNK)
        except BlockingIOError:
            continue
        if not piece:
            break
        data += piece
    return data


def _kill(pidfd: int) -> None:
    try:
        pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass


async def _collect(child: Child) -> int | None:
    """The status of a worker that is at its end."""
    try:
        await loop.exited(child.pidfd)
        return reaper.collect(child)
    finally:
        os.close(child.pidfd)


def _result(outcome: bytes, name: str, status: int | None) -> bytes:
    kind, rest = outcome[:1], outcome[1:]
    if kind == DONE and len(outcome) <= MAX_OUTCOME:
        return rest
    if kind in (FAILED, REFUSED) and len(rest) >= 4:
        (number,) = struct.unpack_from("=i", rest)
        failure = StepFailed(name, rest[4:].decode(errors="replace"), number if kind == FAILED else 0)
        if kind == REFUSED:
            failure.code = number
        raise failure
    raise StepFailed(name, f"the worker ended with status {status} before it was done")
