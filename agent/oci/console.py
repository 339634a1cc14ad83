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
LFLAG, CC = 3, 6
"""Places in what tcgetattr gives."""


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
    """A descriptor of this process's terminal, which the caller closes: a standard stream that is one, else the controlling terminal.

    Raises Refused where there is none.
    """
    for fd in (0, 1, 2):
        if os.isatty(fd):
            return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    try:
        return os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError as error:
        raise Refused(
            "process.terminal", f"no standard stream is a terminal, there is no --console-socket, and /dev/tty: {error.strerror}"
        ) from error


def _size(terminal: int) -> tuple[int, int]:
    rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8)))
    return rows, columns


def sized(process: Process, parsed: Parsed) -> Process:
    """A process whose terminal this one carries, with the size of ours from its first moment on. Raises Refused without a terminal."""
    if not process.terminal or parsed.text("console-socket") or parsed.switch("detach"):
        return process
    terminal = own_terminal()
    try:
        return replace(process, console_size=_size(terminal))
    finally:
        os.close(terminal)


def make_raw(terminal: int) -> bytes:
    """Make a terminal raw; what was typed before, to be passed on first.

    An end of input (^D) that was typed while lines were edited is kept by the kernel as a mark, and would be read as a NUL byte once they
    are not (n_tty). So what is complete is read before, with that character switched off so that no further mark can be made, and an end
    is given on as the character that was typed. An unfinished line stays and is read later.
    """
    attributes = termios.tcgetattr(terminal)
    typed = b""
    if attributes[LFLAG] & termios.ICANON:
        end = attributes[CC][termios.VEOF]
        attributes[CC][termios.VEOF] = b"\0"
        termios.tcsetattr(terminal, termios.TCSANOW, attributes)
        poll = select.poll()
        poll.register(terminal, select.POLLIN)
        while poll.poll(0) == [(terminal, select.POLLIN)]:
            typed += os.read(terminal, PIECE) or end
    tty.setraw(terminal, termios.TCSADRAIN)  # what was typed before stays
    return typed


class Carrier:
    """`with`: this process's terminal is raw, and what is typed and written goes through. Used from inside the loop.

    Input and output are standard input and output, whatever they are; the end of input is no byte, and nothing is written for it.
    """

    def __init__(self, process: ContainerProcess) -> None:
        self._process = process
        self._terminal = own_terminal()
        self._before = termios.tcgetattr(self._terminal)
        self._typed = b""
        self._tasks: list[loop.Task[None]] = []
        self._output: loop.Task[None] | None = None

    def __enter__(self) -> "Carrier":
        if os.isatty(0):
            self._typed = make_raw(self._terminal)
        else:
            tty.setraw(self._terminal, termios.TCSADRAIN)
        self.resize()
        loop.on_signal(signal.SIGWINCH, self.resize)
        self._output = loop.spawn(self._copy_output(), name="terminal output")
        self._tasks.append(loop.spawn(self._copy_input(), name="terminal input"))
        return self

    def __exit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._before)
        os.close(self._terminal)

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
            await self._process.write_stdin(self._typed)
            while data := await _read_input():
                await self._process.write_stdin(data)
        except (WrongState, OSError):
            return  # nobody reads any more

    async def _copy_output(self) -> None:
        while data := await self._process.read_stdout(PIECE):
            _write_all(1, data)


async def _read_input() -> bytes:
    """What standard input has, b"" at its end; it may be a file, for which nobody can wait (epoll_ctl(2): EPERM) nor needs to."""
    try:
        await loop.readable(0)
    except PermissionError:
        await loop.sleep(0)  # others' turn
    return os.read(0, PIECE)


def _write_all(fd: int, data: bytes) -> None:
    """To a descriptor that others may have made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
