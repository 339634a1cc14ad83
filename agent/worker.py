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
from agent.loop import Fd

CHUNK = 65536
MAX_OUTCOME = 1 << 20
KILLED_SECONDS = 2.0
"""How long a cancelled task waits for the end of its worker; the kernel may hold one that waits for a device or a share."""
DONE, FAILED, REFUSED = b"D", b"E", b"R"


class NotStarted(StepFailed):
    """No process or descriptor is left for a worker. Nothing has been done, and `given` is still the caller's."""


async def run_in_worker(work: Callable[[], bytes | None], name: str, keep: Sequence[int] = (), given: Sequence[int] = ()) -> bytes:
    """Run `work` in a forked child and return its bytes (at most 1 MiB).

    `keep` are the descriptors that it uses, `given` those that are its own from now on and are closed here, once it has begun; it closes
    all others. What it raises becomes StepFailed(name, text, errno); one that cannot be started is NotStarted. A task that is cancelled
    kills the child and waits until it has ended, so that what it has done is known; after KILLED_SECONDS without that it goes on alone.
    """
    try:
        read_end, pid, pidfd = _start(work, (*keep, *given))
    except OSError as error:
        raise NotStarted(name, f"start a worker: {error.strerror or error}", error.errno or 0) from error
    child = reaper.adopt(pid, pidfd.fileno())
    for fd in given:
        os.close(fd)
    with read_end:
        try:
            outcome = await _read_all(read_end)
        except BaseException:
            await loop.shield(_kill(child, pidfd, name))
            raise
    return _result(outcome, name, await loop.shield(_collect(child, pidfd)))


def _start(work: Callable[[], bytes | None], kept: Sequence[int]) -> tuple[Fd, int, Fd]:
    """Start the child: the reading end of its pipe, its pid and pidfd. Raises OSError; no descriptor and no child is left then.

    It begins to work when it has read a byte: until its pidfd is open nobody could be sure of its end.
    """
    read_end, write_end = loop.pipe()
    with write_end:
        try:
            gate, key = loop.pipe()
        except OSError:
            read_end.close()
            raise
        with gate, key:
            try:
                pid = os.fork()
                if pid == 0:
                    key.close()
                    _child(work, gate.fileno(), write_end.fileno(), kept)
                pidfd = _open(pid)
            except BaseException:
                read_end.close()
                raise
            os.write(key.fileno(), b"x")
    os.set_blocking(read_end.fileno(), False)
    return read_end, pid, pidfd


def _open(pid: int) -> Fd:
    """The pidfd of a child that waits at its gate. Without one the child is ended: it is at once, having done nothing."""
    try:
        return Fd(os.pidfd_open(pid))
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _child(work: Callable[[], bytes | None], gate: int, write_end: int, keep: Sequence[int]) -> Never:
    """Never returns into the parent's loop."""
    status = 1
    try:
        if not os.read(gate, 1):
            os._exit(status)  # the parent has ended
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


async def _read_all(fd: Fd) -> bytes:
    data = b""
    while len(data) <= MAX_OUTCOME:
        await loop.readable(fd)
        try:
            piece = os.read(fd.fileno(), CHUNK)
        except BlockingIOError:
            continue
        if not piece:
            break
        data += piece
    return data


async def _kill(child: Child, pidfd: Fd, name: str) -> None:
    """End a worker that nobody waits for any more. One that the kernel does not let go of is reaped whenever that is."""
    try:
        pidfd_send_signal(child.pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    collecting = loop.spawn(_collect(child, pidfd), name=f"{name} killed")
    collecting.shielded = True
    try:
        with loop.timeout(KILLED_SECONDS):
            await collecting.wait()
    except TimeoutError:
        pass


async def _collect(child: Child, pidfd: Fd) -> int | None:
    """The status of a worker that is at its end."""
    with pidfd:
        await loop.exited(pidfd)
        return reaper.collect(child)


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
