"""Handler of ReleaseProcess: processes without a client.

The output of such a process is discarded, and nothing of it is kept after it has ended. Without
this, a writer would block when the pipe that nobody reads is full, and a process that nobody waits
for would keep its descriptors. That would happen to an exec whose client was killed, because ttRPC
has no notion of the owner of a process.
"""

from typing import TYPE_CHECKING

from agent import loop
from agent.errors import AgentError
from innkeeper.wire.pb.empty_pb2 import Empty

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent.container.process import ContainerProcess
    from agent.sandbox import Sandbox
    from agent.service.dispatcher import Handlers
    from innkeeper.wire.pb import guest_pb2

DISCARD_SIZE = 1 << 20
"""Bytes that are read and discarded at a time."""
DISCARD_PAUSE = 0.02
"""Seconds between two of these reads.

With the pause, a process that writes without end (`yes`) does not keep PID 1 busy all the time.
"""
FORGET_SECONDS = 0.5
"""Seconds between two checks whether the status of an ended process was fetched."""


async def release_process(sandbox: "Sandbox", request: "guest_pb2.ReleaseProcessRequest") -> Empty:
    """Release a process now, or with `when_caller_goes` when the caller's connection ends.

    In the second case the call lasts until the process has ended and its status was fetched. If
    the connection ends before that, the call is cancelled, and the process is released then.
    """
    container_id, exec_id = request.container_id, request.exec_id or request.container_id
    process = sandbox.containers.process(container_id, exec_id)
    if request.when_caller_goes:
        try:
            await _until_fetched(sandbox, container_id, exec_id, process)
            return Empty()
        except loop.Cancelled:
            if process.terminal and _is_known(sandbox, container_id, exec_id, process):
                # This hangs the terminal up: the session gets SIGHUP, and both streams end.
                process.stdio.close()
            _release(sandbox, container_id, exec_id, process)
            raise
    _release(sandbox, container_id, exec_id, process)
    return Empty()


async def _until_fetched(sandbox: "Sandbox", container_id: str, exec_id: str, process: "ContainerProcess") -> None:
    """Wait until the process has ended and its status was fetched."""
    await process.wait()
    while _is_known(sandbox, container_id, exec_id, process):
        await loop.sleep(FORGET_SECONDS)


def _is_known(sandbox: "Sandbox", container_id: str, exec_id: str, process: "ContainerProcess") -> bool:
    """Return True if the sandbox still has this process under its ids."""
    try:
        return sandbox.containers.process(container_id, exec_id) is process
    except AgentError:
        return False


def _release(sandbox: "Sandbox", container_id: str, exec_id: str, process: "ContainerProcess") -> None:
    """Discard the output and the status of a process, in a task of its own."""
    loop.spawn(_drain(sandbox, container_id, exec_id, process), name=f"released {exec_id}")


async def _drain(sandbox: "Sandbox", container_id: str, exec_id: str, process: "ContainerProcess") -> None:
    """Discard the output of a process until it ends, then its status.

    Its container may be removed at any moment, which ends the streams.
    """
    try:
        if not process.terminal:
            process.stdio.close_stdin()
        errors = None if process.terminal else loop.spawn(_discard(process.stdio.read_stderr), name=f"stderr of {exec_id}")
        await _discard(process.stdio.read_stdout)
        if errors is not None:
            await errors.wait()
        if _is_known(sandbox, container_id, exec_id, process):
            await sandbox.containers.wait(container_id, exec_id)
    except (AgentError, OSError):
        pass  # it has been removed


async def _discard(read: "Callable[[int], Awaitable[bytes]]") -> None:
    """Read and discard an output until its end."""
    try:
        while await read(DISCARD_SIZE):
            await loop.sleep(DISCARD_PAUSE)
    except (AgentError, OSError):
        pass  # closed: the terminal has hung up, or the container was removed


METHODS: "Handlers" = {"ReleaseProcess": release_process}
