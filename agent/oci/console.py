"""A container's terminal, relayed to the terminal of this process."""

import fcntl
import os
import select
import signal
import struct
import termios
import tty
from dataclasses import replace

from agent import loop
from agent.container.process import ContainerProcess
from agent.container.spec.process import Process
from agent.errors import Refused, WrongState
from agent.oci.arguments import Parsed

BUFFER_SIZE = 1 << 16
LFLAG, CC = 3, 6
"""Indexes into the list of tcgetattr(3)."""


def open_controlling_terminal() -> int:
    """Return a descriptor of this process's terminal. The caller closes it.

    It is a standard stream that is a terminal, else the controlling terminal. Raises Refused if
    there is neither.
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


def with_terminal_size(process: Process, parsed: Parsed) -> Process:
    """Return a process whose terminal has the size of ours from the start.

    This applies if this process relays the terminal. Raises Refused without a terminal.
    """
    if not process.terminal or parsed.text("console-socket") or parsed.switch("detach"):
        return process
    terminal = open_controlling_terminal()
    try:
        return replace(process, console_size=_size(terminal))
    finally:
        os.close(terminal)


def make_raw(terminal: int) -> bytes:
    """Make a terminal raw. Return what was typed before, which must be passed on first.

    In canonical mode the kernel stores a typed end of input (^D) as a mark in its buffer. Once the
    terminal is raw, this mark would be read as a NUL byte (n_tty). So complete lines are read
    before, with the end-of-input character switched off so that no further mark can be made, and an
    end of input is passed on as the character that was typed. An unfinished line stays in the
    buffer and is read later.
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
            typed += os.read(terminal, BUFFER_SIZE) or end
    tty.setraw(terminal, termios.TCSADRAIN)  # TCSADRAIN keeps what was typed before
    return typed


class TerminalRelay:
    """Context manager that makes this process's terminal raw and relays input and output.

    Use it inside the event loop. Input and output are standard input and output, whatever they are.
    At the end of input nothing is written to the process.
    """

    def __init__(self, process: ContainerProcess) -> None:
        self._process = process
        self._terminal = open_controlling_terminal()
        self._before = termios.tcgetattr(self._terminal)
        self._typed = b""
        self._tasks: list[loop.Task[None]] = []
        self._output: loop.Task[None] | None = None

    def __enter__(self) -> "TerminalRelay":
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
            self._process.stdio.resize(*_size(self._terminal))
        except WrongState:
            pass  # it has just ended

    async def drained(self) -> None:
        """Wait until all output of the container has been written."""
        assert self._output is not None
        await self._output.wait()

    async def _copy_input(self) -> None:
        try:
            await self._process.stdio.write_stdin(self._typed)
            while data := await _read_input():
                await self._process.stdio.write_stdin(data)
        except (WrongState, OSError):
            return  # the process no longer reads

    async def _copy_output(self) -> None:
        while data := await self._process.stdio.read_stdout(BUFFER_SIZE):
            _write_all(1, data)


async def _read_input() -> bytes:
    """Return available data of standard input, b"" at its end.

    It may be a file, which epoll does not support (epoll_ctl(2): EPERM) and which is always ready.
    """
    try:
        await loop.readable(0)
    except PermissionError:
        await loop.sleep(0)  # let other tasks run
    return os.read(0, BUFFER_SIZE)


def _write_all(fd: int, data: bytes) -> None:
    """Write all of `data` to a descriptor that another process may have made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
