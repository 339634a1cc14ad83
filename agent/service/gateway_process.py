"""The process of the gateway: its start, its end, and the message that it is ready."""

import os
import signal
import sys
from typing import TYPE_CHECKING

from agent import log
from agent.errors import AgentError
from agent.linux.process import kill
from agent.linux.reaper import reaper
from agent.loop import Event, exited, readable, spawn, timeout
from agent.loop.children import open_child

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.linux.reaper import Child

START_SECONDS = 120.0
"""Seconds that the gateway may take until it listens.

An emulated guest on a busy machine needs ten.
"""
READY = 3
"""Descriptor to which the gateway writes one byte when it listens."""
_DEFAULTS = (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)
"""Signals to set to their default actions.

Python or PID 1 ignores them, and execve(2) would keep that.
"""


class GatewayFailed(AgentError):
    """The gateway did not start."""


class Process:
    """One run of the gateway. `ended` is set when the process has ended and is reaped."""

    def __init__(self, child: "Child") -> None:
        self.pid = child.pid
        self.ended = Event()
        self._child = child
        spawn(self._watch(), name="gateway")

    async def _watch(self) -> None:
        """Reap the process when it ends."""
        await exited(self._child.pidfd)
        status = reaper.collect(self._child)
        os.close(self._child.pidfd)
        log.warn(f"gateway ended with status {status}; the next connection starts another", "grpc")
        self.ended.set()

    async def kill(self) -> None:
        """Kill the process and wait until it is reaped."""
        if not self.ended.is_set:
            kill(self._child.pidfd)
        await self.ended.wait()


async def start(arguments: "Sequence[str]") -> Process:
    """Start the gateway with `arguments` and return when it listens.

    Raises OSError, TimeoutError or GatewayFailed. The process is gone in these cases.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        try:
            process = _spawn(arguments, write_end)
        finally:
            os.close(write_end)
        try:
            with timeout(START_SECONDS):
                await readable(read_end)
            if not os.read(read_end, 1):
                raise GatewayFailed("the gateway ended before it listened")
        except BaseException:
            await process.kill()
            raise
    finally:
        os.close(read_end)
    log.info("gateway started", "grpc", pid=process.pid)
    return process


def _spawn(arguments: "Sequence[str]", write_end: int) -> Process:
    """Start the process in a session of its own.

    posix_spawn(3) does not copy the page tables of PID 1, as fork(2) does. Standard input is
    /dev/null, and standard output is the standard error of PID 1. Raises OSError.
    """
    argv, environment = _program()
    pid = os.posix_spawn(
        argv[0],
        [*argv, *arguments, str(READY)],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, 2, 1),
            (os.POSIX_SPAWN_DUP2, write_end, READY),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=_DEFAULTS,
    )
    return Process(reaper.adopt(pid, open_child(pid).detach()))


def _program() -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of the gateway.

    Of the agent's own environment only PATH is passed on.
    """
    environment = {"PATH": os.environ.get("PATH", os.defpath), "GRPC_ENABLE_FORK_SUPPORT": "0", "GRPC_VERBOSITY": "ERROR"}
    if getattr(sys, "frozen", False):
        program = f"{os.path.dirname(sys._MEIPASS)}/gateway"  # type: ignore[attr-defined]
        # rootfs/init.c explains these two variables
        return [program], {**environment, "_PYI_ARCHIVE_FILE": program, "_PYI_PARENT_PROCESS_LEVEL": "-1"}
    tree = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [sys.executable, "-m", "agent.gateway"], {**environment, "PYTHONPATH": tree}
