"""The user's terminal: raw while a guest process uses it, and always restored afterwards."""

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

READ_SIZE = 1 << 16
LFLAG, CC = 3, 6
"""Indices into the list that tcgetattr returns."""


def size(descriptor: int = 1) -> tuple[int, int] | None:
    """Return (rows, columns) of the terminal, or None without one."""
    for candidate in (descriptor, 0, 2):
        try:
            found = os.get_terminal_size(candidate)
        except OSError:
            continue
        if found.lines and found.columns:
            return found.lines, found.columns
    return None


@contextmanager
def raw(descriptor: int = 0) -> Iterator[bytes]:
    """Context manager: put the terminal into raw mode, so that every key goes to the guest process.

    Yields the lines that were typed before, which go to the process first. A descriptor that is not
    a terminal is left alone.
    """
    if not os.isatty(descriptor):
        yield b""
        return
    before = termios.tcgetattr(descriptor)
    typed = _take_typed(descriptor) if before[LFLAG] & termios.ICANON else b""
    tty.setraw(descriptor, termios.TCSANOW)
    try:
        yield typed
    finally:
        sys.stderr.flush()
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _take_typed(descriptor: int) -> bytes:
    """Read the complete lines that wait in a terminal in canonical mode.

    The kernel stores an end of file (^D) among them as a mark, which would read as a NUL byte once
    the terminal is raw. It is returned as the character that was typed. VEOF is disabled first, so
    that no further mark is made in the meantime.
    """
    attributes = termios.tcgetattr(descriptor)
    end = attributes[CC][termios.VEOF]
    attributes[CC][termios.VEOF] = b"\0"
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    typed = b""
    while poll.poll(0) == [(descriptor, select.POLLIN)]:
        typed += os.read(descriptor, READ_SIZE) or end
    return typed
