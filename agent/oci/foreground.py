"""Waits for a process of a container in the foreground.

Signals are passed on to the process, its terminal is relayed, and its exit status becomes ours.
"""

import errno
import signal
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

from agent import loop
from agent.container.process import ContainerProcess
from agent.errors import StepFailed, WrongState
from agent.linux.reaper import reaper
from agent.oci.console import TerminalRelay

T = TypeVar("T")

ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
FORWARDED = (*ENDING, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGCONT)
DRAIN_SECONDS = 5.0


async def interruptible(work: Coroutine[Any, Any, T], what: str) -> T:
    """Run `work`, but cancel it if a signal asks to end. Raises StepFailed then.

    Cancelling undoes the work.
    """
    task = loop.spawn(work, name=what)
    for signum in ENDING:
        loop.on_signal(signum, task.cancel)
    try:
        return await task.wait()
    except loop.TaskCancelled:
        raise StepFailed(what, "interrupted by a signal", errno.EINTR) from None
    finally:
        await task.stop()


class Foreground:
    """Passes signals on to a process. Use it inside the event loop.

    Create it before the process. A signal that arrives earlier is passed on as soon as the program
    runs.
    """

    def __init__(self) -> None:
        self._process: ContainerProcess | None = None
        self._pending: list[int] = []
        for signum in FORWARDED:
            loop.on_signal(signum, partial(self._arrived, signum))
        loop.on_signal(signal.SIGCHLD, reaper.sweep)

    def _arrived(self, signum: int) -> None:
        if self._process is None:
            self._pending.append(signum)
            return
        try:
            self._process.signal(signum)
        except WrongState:
            pass  # it has just ended

    async def until_end(self, process: ContainerProcess) -> int:
        """Wait for the end of a started process, and return its exit status.

        The status is 0..255, 128 + n for signal n.
        """
        self._process = process
        while self._pending:
            self._arrived(self._pending.pop(0))
        if not process.terminal:
            return await process.wait()
        with TerminalRelay(process) as relay:
            status = await process.wait()
            try:
                with loop.timeout(DRAIN_SECONDS):
                    await relay.drained()
            except TimeoutError:
                pass  # another process of the container keeps the terminal open
            return status
