"""Runs work that may take long in a forked child, so that PID 1 never blocks.

The child has everything that is imported and imports nothing itself. Its outcome arrives through a
pipe. A pidfd reports its end, so nothing is lost if the SIGCHLD handler reaps the child first.
"""

import os
import signal
import struct
from collections.abc import Callable, Sequence
from typing import Never

from agent import loop
from agent.errors import AgentError, StepFailed
from agent.linux.process import close_all_but
from agent.linux.reaper import reaper
from agent.loop import Fd
from agent.loop.children import collect, kill, open_child

BUFFER_SIZE = 65536
"""Most bytes of one read."""
MAX_OUTCOME = 1 << 20
"""Most bytes of an outcome."""
DONE, FAILED, REFUSED = b"D", b"E", b"R"
"""First byte of an outcome: returned bytes, an exception, or an AgentError."""


class NotStarted(StepFailed):
    """The worker could not be started, for lack of a process or a descriptor.

    Nothing has been done, and the caller still owns the descriptors in `given`.
    """


async def run_in_worker(work: Callable[[], bytes | None], name: str, keep: Sequence[int] = (), given: Sequence[int] = ()) -> bytes:
    """Run `work` in a forked child and return its bytes (at most 1 MiB).

    `keep` are the descriptors that it uses. `given` are descriptors that are handed over: they are
    closed here once the child has started. The child closes all others.

    An exception of `work` is raised here as StepFailed(name, text, errno). Raises NotStarted if
    the child cannot be started.

    If the task is cancelled, the child is killed, and the task waits until it has ended. Only then
    it is certain what the child has done and that it does nothing more. After KILLED_SECONDS the
    task goes on without that, and the child is reaped whenever it ends.
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
            await loop.shield(kill(child, pidfd, name))
            raise
    return _result(outcome, name, await loop.shield(collect(child, pidfd)))


def _start(work: Callable[[], bytes | None], kept: Sequence[int]) -> tuple[Fd, int, Fd]:
    """Start the child and return (read end of its pipe, pid, pidfd).

    Raises OSError, and then neither a descriptor nor a child is left. The child waits for a byte
    before it begins to work. Until its pidfd is open, the parent has no way to wait for its end,
    and could not kill it safely after it had done half of its work.
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
                pidfd = open_child(pid)
            except BaseException:
                read_end.close()
                raise
            os.write(key.fileno(), b"x")
    os.set_blocking(read_end.fileno(), False)
    return read_end, pid, pidfd


def _child(work: Callable[[], bytes | None], gate: int, write_end: int, keep: Sequence[int]) -> Never:
    """Run `work` and write its outcome, in the child. Never returns into the parent's loop.

    Signals get their default actions first. The wakeup descriptor is a pipe that is shared with
    the parent, so a signal of the child would otherwise reach the parent's loop.
    """
    status = 1
    try:
        if not os.read(gate, 1):
            os._exit(status)  # the end of the pipe: the parent has ended or given up
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
    """Return the outcome of `work` as bytes: a kind, for errors a number, and the data."""
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
    """Read until the end of the pipe, or until the outcome is too long."""
    data = b""
    while len(data) <= MAX_OUTCOME:
        await loop.readable(fd)
        try:
            piece = os.read(fd.fileno(), BUFFER_SIZE)
        except BlockingIOError:
            continue
        if not piece:
            break
        data += piece
    return data


def _result(outcome: bytes, name: str, status: int | None) -> bytes:
    """Return the bytes of an outcome, or raise StepFailed."""
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
