"""Terminals: handed to the console socket of an engine, or carried between a container and this process's own terminal."""

import fcntl
import os
import select
import signal
import socket
import struct
import termios
import tty
from dataclasses import replace

from agent import loop
from agent.container.process import ContainerProcess
from agent.container.spec.process import Process
from agent.container.stdio import InheritedStdio, Stdio
from agent.errors import Refused, StepFailed, WrongState
from agent.oci.arguments import Parsed

PIECE = 1 << 16


class ConsoleSocket(Stdio):
    """A terminal whose master goes over a unix socket to whoever keeps it, as runc sends it: one descriptor with a name."""

    def __init__(self, path: str) -> None:
        super().__init__(True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise Refused("--console-socket", f"{path}: {error.strerror}") from error

    def take_master(self, fd: int) -> None:
        """Send it on."""
        try:
            socket.send_fds(self._socket, [b"/dev/ptmx"], [fd])
        except OSError as error:
            raise StepFailed("send the terminal", f"to --console-socket: {error.strerror}", error.errno or 0) from error
        finally:
            os.close(fd)
            self._socket.close()


def streams(parsed: Parsed, terminal: bool, detached: bool) -> Stdio | None:
    """The streams of a process by its options; None for a terminal that this process carries itself. Raises Refused."""
    path = parsed.text("console-socket")
    if terminal and path:
        return ConsoleSocket(path)
    if terminal and detached:
        raise Refused("--console-socket", "a terminal without this process needs one to go to")
    if path:
        raise Refused("--console-socket", "the process has no terminal")
    return None if terminal else InheritedStdio()


def own_terminal() -> int:
    """The standard stream that is a terminal. Raises Refused if none is."""
    for fd in (0, 1, 2):
        if os.isatty(fd):
            return fd
    raise Refused("process.terminal", "no standard stream is a terminal, and there is no --console-socket")


def _size(terminal: int) -> tuple[int, int]:
    rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8)))
    return rows, columns


def sized(process: Process, parsed: Parsed) -> Process:
    """A process whose terminal this one carries, with the size of ours from its first moment on. Raises Refused without a terminal."""
    if not process.terminal or parsed.text("console-socket") or parsed.switch("detach"):
        return process
    return replace(process, console_size=_size(own_terminal()))


class Carrier:
    """`with`: this process's terminal is raw, and what is typed and written goes through. Used from inside the loop."""

    def __init__(self, process: ContainerProcess) -> None:
        self._process = process
        self._terminal = own_terminal()
        self._before = termios.tcgetattr(self._terminal)
        self._tasks: list[loop.Task[None]] = []
        self._output: loop.Task[None] | None = None

    def __enter__(self) -> "Carrier":
        tty.setraw(self._terminal, termios.TCSADRAIN)  # what was typed before stays
        self.resize()
        loop.on_signal(signal.SIGWINCH, self.resize)
        self._output = loop.spawn(self._copy_output(), name="terminal output")
        self._tasks.append(loop.spawn(self._copy_input(), name="terminal input"))
        return self

    def __exit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._before)

    def resize(self) -> None:
        """Give the container's terminal the size of ours."""
        try:
            self._process.resize(*_size(self._terminal))
        except WrongState:
            pass  # it has just ended

    async def drained(self) -> None:
        """Wait until everything that the container wrote is through."""
        assert self._output is not None
        await self._output.wait()

    async def _copy_input(self) -> None:
        try:
            while True:
                await loop.readable(0)
                data = os.read(0, PIECE)
                if not data:
                    return
                await self._process.write_stdin(data)
        except (WrongState, OSError):
            return  # nobody reads any more

    async def _copy_output(self) -> None:
        while data := await self._process.read_stdout(PIECE):
            _write_all(1, data)


def _write_all(fd: int, data: bytes) -> None:
    """To a descriptor that others may have made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
