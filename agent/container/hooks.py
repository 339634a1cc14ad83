"""Running hooks: each a process of its own, in a session of its own, with nothing of the agent's.

A hook gets its arguments and environment exactly as listed, the container's state as JSON on standard input and then its end, and a
directory to be in. What it writes is kept to explain a failure. After its time its process group is killed.

`run` is for hooks of the runtime's own namespaces and waits in the loop; `run_here` is for a container's child, which has no loop and
may wait in place.
"""

import ctypes
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Never

from agent import loop
from agent.container.spec.hooks import Hook
from agent.container.spec.process import encode
from agent.errors import StepFailed
from agent.linux import process as p
from agent.linux.reaper import Child, reaper

OUTPUT_MAX = 2048
"""Bytes of a hook's output that a failure quotes."""
READS_MAX = 16


@dataclass(frozen=True, slots=True)
class Command:
    """A hook with its vectors made, so that a forked child only uses them."""

    field: str
    path: bytes
    argv: "ctypes.Array[ctypes.c_char_p]"
    envp: "ctypes.Array[ctypes.c_char_p]"
    timeout: int | None

    def failure(self, what: str, output: bytes | bytearray) -> OSError:
        """The error of this hook; errno 0, since no system call has failed."""
        said = output.decode(errors="replace").strip()
        return OSError(0, f"{self.field} {what}{f': {said}' if said else ''}", os.fsdecode(self.path))

    def verdict(self, status: int, output: bytes) -> None:
        """Raises OSError unless the hook has succeeded. `status` is the shell's number."""
        if status:
            raise self.failure(f"ended with status {status}", output)


def command(hook: Hook, environment: tuple[str, ...] = ()) -> Command:
    """A hook ready to run; `environment` is for one that lists none of its own."""
    env = environment if hook.env is None else hook.env
    return Command(hook.field, os.fsencode(hook.path), p.vector(encode(hook.args)), p.vector(encode(env)), hook.timeout)


def patience(hooks: tuple[Hook, ...]) -> float | None:
    """The seconds that hooks may take together; None where one has no limit."""
    total = 0.0
    for hook in hooks:
        if hook.timeout is None:
            return None
        total += hook.timeout
    return total


async def run(hooks: tuple[Hook, ...], state: bytes, directory: str) -> None:
    """Run hooks one after the other in the caller's namespaces, in `directory` or, where that is missing, in /. Raises StepFailed."""
    if not hooks:
        return
    try:
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        place = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        for hook in hooks:
            try:
                await _run(command(hook), state, place)
            except OSError as error:
                raise StepFailed("run hook", f"{error.filename or hook.path}: {error.strerror or error}", error.errno or 0) from error
    finally:
        os.close(place)


async def _run(hook: Command, state: bytes, place: int) -> None:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    output = bytearray()
    try:
        os.set_blocking(reading, False)
        with p.SignalsBlocked():
            pid, pidfd = _spawn(hook, state, place, writing, _nothing)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    child = reaper.adopt(pid, pidfd)
    drain = loop.spawn(_drain(reading, output), name="hook output")
    try:
        try:
            with loop.timeout(hook.timeout):
                await loop.exited(pidfd)
        except TimeoutError:
            raise hook.failure(f"was not done within {hook.timeout} s", output) from None
    except BaseException:
        _kill_group(pid)
        await _collect(child)
        raise
    finally:
        await _end(drain, reading, output)
        os.close(reading)
    hook.verdict(await _collect(child), bytes(output))


async def _drain(fd: int, output: bytearray) -> None:
    """Read until cancelled or at the end, so that the hook never waits for a reader."""
    while not _read(fd, output):
        await loop.readable(fd)


def _read(fd: int, output: bytearray) -> bool:
    """Take what is there, keep the last bytes; whether it was the end. One who writes without end does not hold the caller."""
    for _ in range(READS_MAX):
        try:
            piece = os.read(fd, 1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            return True
        if not piece:
            return True
        output += piece
        del output[:-OUTPUT_MAX]
    return False


async def _end(drain: "loop.Task[None]", fd: int, output: bytearray) -> None:
    """Take what is left and read no more: a process that the hook left behind may keep the pipe open."""
    await drain.stop()
    _read(fd, output)


async def _collect(child: Child) -> int:
    try:
        await loop.exited(child.pidfd)
        status = reaper.collect(child)
    finally:
        os.close(child.pidfd)
    assert status is not None
    return status


def run_here(hooks: tuple[Command, ...], state: tuple[bytes, bytes], place: int, contain: Callable[[], None]) -> None:
    """Run hooks from a container's child, in its namespaces; `contain` is called in each before it is executed. Raises OSError.

    `state` is the JSON before and after the pid.
    """
    for hook in hooks:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reading, False)
        try:
            pid, pidfd = _spawn(hook, state[0] + b"%d" % os.getpid() + state[1], place, writing, contain)
        finally:
            os.close(writing)
        try:
            output = _wait_here(hook, pid, pidfd, reading)
            hook.verdict(p.wait_status(os.waitid(p.P_PIDFD, pidfd, os.WEXITED)), output)  # type: ignore[arg-type]
        finally:
            os.close(pidfd)
            os.close(reading)


def _wait_here(hook: Command, pid: int, pidfd: int, reading: int) -> bytes:
    """Wait for the hook's end; what it wrote last."""
    output = bytearray()
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(reading, select.POLLIN)
    end = None if hook.timeout is None else time.monotonic() + hook.timeout
    while True:
        ready = poll.poll(None if end is None else max(0.0, end - time.monotonic()) * 1000)
        for fd, _event in ready:
            if fd == reading and _read(reading, output):
                poll.unregister(reading)
        if any(fd == pidfd for fd, _event in ready):
            _read(reading, output)
            return bytes(output)
        if not ready and end is not None and time.monotonic() >= end:
            _kill_group(pid)
            raise hook.failure(f"was not done within {hook.timeout} s", bytes(output))


def _spawn(hook: Command, state: bytes, place: int, output: int, contain: Callable[[], None]) -> tuple[int, int]:
    """Start a hook: (pid, pidfd). The caller has blocked all signals."""
    stdin = os.memfd_create("state")
    try:
        os.write(stdin, state)
        os.lseek(stdin, 0, os.SEEK_SET)
        pid, pidfd = p.clone3(0)
        if pid == 0:
            _become(hook, stdin, place, output, contain)
        return pid, pidfd
    finally:
        os.close(stdin)


def _become(hook: Command, stdin: int, place: int, output: int, contain: Callable[[], None]) -> Never:
    """The hook's process, up to its program."""
    try:
        p.reset_ignored_signals()
        os.setsid()
        os.fchdir(place)
        for number, fd in enumerate((stdin, output, output)):
            os.dup2(fd, number)
        p.close_range_cloexec(3)
        p.unblock_signals()
        contain()
        number = p.execve(hook.path, hook.argv, hook.envp)
        os.write(2, os.strerror(number).encode())
    # The edge of a process: nothing of the parent's may run here.
    except BaseException as error:  # noqa: BLE001
        os.write(2, str(error).encode(errors="replace"))
    finally:
        os._exit(127)


def _kill_group(pid: int) -> None:
    """The hook has a session of its own, so its group has its number; nobody has reaped it yet, so the number is still its own."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _nothing() -> None:
    """A hook of the runtime's has the runtime's rights."""
