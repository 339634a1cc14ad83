"""A process that containerd knows, with its state: created, running, stopped."""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from innkeeper.shim.errors import not_found, wrong_state

CREATED, RUNNING, STOPPED, PAUSED = 1, 2, 3, 4
"""The numbers of containerd's task status."""
LOST = 128 + signal.SIGKILL
"""The exit status of a process whose VM has ended before it."""


@dataclass(frozen=True)
class Stdio:
    """What containerd gives a process as its streams: paths or addresses, empty for none.

    `id` and `namespace` name the process to a logging program.
    """

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False
    id: str = ""
    namespace: str = ""


@dataclass(frozen=True)
class Exit:
    """How a process has ended: 0-255, and nanoseconds since the epoch."""

    status: int
    at: int


class Process:
    """What every process has. This one has no counterpart in the guest: it stands for a pod.

    `on_exit` publishes the exit, before those that wait for it are woken. containerd must hear of
    the start first. So who starts a process holds `order` until it has published that, and `ended`
    takes it.
    """

    def __init__(self, stdio: Stdio, on_exit: "Callable[[Process], None]") -> None:
        self.stdio = stdio
        self._on_exit = on_exit
        self.order = threading.Lock()
        self.started = False
        self.exit: Exit | None = None
        self._exited = threading.Event()

    @property
    def status(self) -> int:
        """The state, as one of the numbers of containerd."""
        if self.exit is not None:
            return STOPPED
        return RUNNING if self.started else CREATED

    def start(self) -> None:
        """Start the process. To be called with `order` held."""
        self.check_created()
        self.started = True

    def check_created(self) -> None:
        """Raise CallError unless the process waits for its start."""
        if self.status != CREATED:
            raise wrong_state("the process has been started already")

    def check_alive(self) -> None:
        """Raise CallError if the process has ended: containerd takes that for success of a kill."""
        if self.exit is not None:
            raise not_found("process already finished")

    def kill(self, signum: int, everything: bool) -> None:
        """End the process: this one knows no other signals."""
        self.check_alive()
        self.ended(128 + signum)

    def ended(self, status: int) -> None:
        """Record the exit, publish it, and wake those that wait. The first exit counts."""
        with self.order:
            if self.exit is None:
                self.exit = Exit(status, time.time_ns())
                self._on_exit(self)
                self._exited.set()

    def wait(self) -> Exit:
        """Wait until the process has ended."""
        self._exited.wait()
        assert self.exit is not None
        return self.exit

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the terminal."""
        raise wrong_state("the process has no terminal")

    def close_stdin(self) -> None:
        """Hold the standard input open no longer."""

    def close(self) -> None:
        """Release what the process holds on the host. It has ended, or never began."""
