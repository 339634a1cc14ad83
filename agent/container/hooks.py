"""Hooks: each runs as a process and in a session of its own, and inherits nothing of the agent.

A hook gets its arguments and environment exactly as listed, a working directory, and the
container's state as JSON on standard input, followed by end of file. Its output is kept to explain
a failure. After its timeout its process group is killed.

`run` runs hooks in the runtime's namespaces and waits in the event loop. `run_in_child` is for a
container's child, which has no event loop and may block.
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
from agent.container.state import State
from agent.errors import StepFailed
from agent.linux import process as p
from agent.linux.reaper import Child, reaper
from agent.loop import Fd
from agent.loop.children import collect, kill

OUTPUT_MAX = 2048
"""Bytes of a hook's output that an error message quotes."""
READS_MAX = 16
"""Reads of a hook's output before the caller can do anything else."""


@dataclass(frozen=True, slots=True)
class PreparedHook:
    """A hook with prepared vectors, so that a forked child only uses them."""

    field: str
    path: bytes
    argv: "ctypes.Array[ctypes.c_char_p]"
    envp: "ctypes.Array[ctypes.c_char_p]"
    timeout: int | None

    def failure(self, what: str, output: bytes | bytearray) -> OSError:
        """Return the error of this hook. Its errno is 0, because no system call has failed."""
        text = output.decode(errors="replace").strip()
        return OSError(0, f"{self.field} {what}{f': {text}' if text else ''}", os.fsdecode(self.path))

    def check_status(self, status: int, output: bytes) -> None:
        """Raise OSError unless the hook has succeeded. `status` is the shell's number."""
        if status:
            raise self.failure(f"ended with status {status}", output)


def prepare(hook: Hook, environment: tuple[str, ...] = ()) -> PreparedHook:
    """Return a hook ready to run. `environment` applies if the hook lists none of its own."""
    env = environment if hook.env is None else hook.env
    return PreparedHook(hook.field, os.fsencode(hook.path), p.vector(encode(hook.args)), p.vector(encode(env)), hook.timeout)


def total_timeout(hooks: tuple[Hook, ...]) -> float | None:
    """Return the sum of the hooks' timeouts in seconds, or None if one has no timeout."""
    total = 0.0
    for hook in hooks:
        if hook.timeout is None:
            return None
        total += hook.timeout
    return total


class StatusHooks:
    """The hooks of a container that follow a change of its status: poststart and poststop."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._running: loop.Task[None] | None = None

    async def run(self, hooks: tuple[Hook, ...], status: str, pid: int) -> None:
        """Run hooks after a change to `status`. Raises StepFailed, also if they are cancelled."""
        if not hooks:
            return
        running = run(hooks, self._state.encode(status, pid), self._state.bundle)
        self._running = task = loop.spawn(running, name=f"hooks {self._state.id}")
        try:
            await task.wait()
        except loop.TaskCancelled:
            raise StepFailed("run hook", "the container has been removed meanwhile") from None
        finally:
            self._running = None
            await task.stop()

    async def run_last(self, hooks: tuple[Hook, ...]) -> list[str]:
        """Run the poststop hooks.

        Returns a warning for each that fails: the next one runs all the same.
        """
        warnings = []
        for hook in hooks:
            try:
                await self.run((hook,), "stopped", 0)
            except StepFailed as error:
                warnings.append(str(error))
        return warnings

    def cancel(self) -> None:
        """Cancel what runs, because the container is removed."""
        if self._running is not None:
            self._running.cancel()


async def run(hooks: tuple[Hook, ...], state: bytes, directory: str) -> None:
    """Run hooks one after the other in the caller's namespaces. Raises StepFailed.

    They run in `directory`, or in / if that is missing.
    """
    if not hooks:
        return
    try:
        cwd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        cwd = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        for hook in hooks:
            try:
                await _run(prepare(hook), state, cwd)
            except OSError as error:
                raise StepFailed("run hook", f"{error.filename or hook.path}: {error.strerror or error}", error.errno or 0) from error
    finally:
        os.close(cwd)


async def _run(hook: PreparedHook, state: bytes, cwd: int) -> None:
    with p.SignalsBlocked():
        pid, number, reading = _spawn(hook, state, cwd, _keep_privileges)
    child, pidfd = reaper.adopt(pid, number), Fd(number)
    output = bytearray()
    with Fd(reading) as pipe:
        drain = loop.spawn(_drain(pipe, output), name="hook output")
        try:
            with loop.timeout(hook.timeout):
                await loop.exited(pidfd)
        except BaseException as error:
            await loop.shield(_killed(child, pidfd, drain))
            if isinstance(error, TimeoutError):
                raise hook.failure(f"was not done within {hook.timeout} s", output) from None
            raise
        status = await loop.shield(_ended(child, pidfd, drain))
        # There may be no end of file: a process that the hook left behind may keep the pipe open.
        _read(reading, output)
    assert status is not None
    hook.check_status(status, bytes(output))


async def _killed(child: Child, pidfd: Fd, drain: "loop.Task[None]") -> None:
    """Kill a hook that has not ended, and stop reading its output.

    A child that is collected already is let alone: its pid may be another process's by now.
    """
    if child.status is None:
        _kill_process_group(child.pid)
    await kill(child, pidfd, "hook")
    await drain.stop()


async def _ended(child: Child, pidfd: Fd, drain: "loop.Task[None]") -> int | None:
    """Stop reading the output of a hook that has ended. Return its exit status."""
    await drain.stop()
    return await collect(child, pidfd)


async def _drain(pipe: Fd, output: bytearray) -> None:
    """Read until end of file or cancelled, so that the hook never blocks on a full pipe."""
    while not _read(pipe.fileno(), output):
        await loop.readable(pipe)


def _read(fd: int, output: bytearray) -> bool:
    """Read up to READS_MAX chunks, keeping only the last OUTPUT_MAX bytes. Return True at EOF.

    The number is bounded, so that a hook that writes endlessly cannot block the caller.
    """
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


def run_in_child(hooks: tuple[PreparedHook, ...], state: tuple[bytes, bytes], cwd: int, contain: Callable[[], None]) -> None:
    """Run hooks from a container's child, in its namespaces. Raises OSError.

    `state` is the JSON text before and after the pid. Each hook's process calls `contain` before it
    executes its program.
    """
    for hook in hooks:
        pid, pidfd, reading = _spawn(hook, state[0] + b"%d" % os.getpid() + state[1], cwd, contain)
        try:
            output = _wait_in_child(hook, pid, pidfd, reading)
            hook.check_status(p.wait_status(os.waitid(p.P_PIDFD, pidfd, os.WEXITED)), output)  # type: ignore[arg-type]
        finally:
            os.close(pidfd)
            os.close(reading)


def _wait_in_child(hook: PreparedHook, pid: int, pidfd: int, reading: int) -> bytes:
    """Wait until the hook has ended, and return the last bytes of its output."""
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
            _kill_process_group(pid)
            raise hook.failure(f"was not done within {hook.timeout} s", bytes(output))


def _spawn(hook: PreparedHook, state: bytes, cwd: int, contain: Callable[[], None]) -> tuple[int, int, int]:
    """Start a hook. Return its pid, its pidfd and the pipe from which its output is read.

    The caller has blocked all signals.
    """
    stdin = os.memfd_create("state")
    try:
        os.write(stdin, state)
        os.lseek(stdin, 0, os.SEEK_SET)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(reading, False)
            pid, pidfd = p.clone3(0)
            if pid == 0:
                _exec_hook(hook, stdin, cwd, writing, contain)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return pid, pidfd, reading
    finally:
        os.close(stdin)


def _exec_hook(hook: PreparedHook, stdin: int, cwd: int, output: int, contain: Callable[[], None]) -> Never:
    """Turn the forked child into the hook's program. Never returns."""
    try:
        p.reset_ignored_signals()
        os.setsid()
        os.fchdir(cwd)
        for number, fd in enumerate((stdin, output, output)):
            os.dup2(fd, number)
        p.close_range_cloexec(3)
        p.unblock_signals()
        contain()
        number = p.execve(hook.path, hook.argv, hook.envp)
        os.write(2, os.strerror(number).encode())
    # Outermost frame of a forked process: an exception that passed it would run the parent's code.
    except BaseException as error:  # noqa: BLE001
        os.write(2, str(error).encode(errors="replace"))
    finally:
        os._exit(127)


def _kill_process_group(pid: int) -> None:
    """Kill the hook and its process group.

    The group has the hook's pid, because the hook called setsid(2). Nobody has reaped it yet, so
    the pid cannot have been reused. `os.kill` covers a hook that has not reached its setsid yet.
    """
    for send in (os.killpg, os.kill):
        try:
            send(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _keep_privileges() -> None:
    """Change nothing: a hook of the runtime has the runtime's privileges."""
