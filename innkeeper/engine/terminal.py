"""The user's terminal: raw while a process in the guest has it, and always as it was afterwards."""

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

READ_SIZE = 1 << 16
LFLAG, CC = 3, 6
"""Places in what tcgetattr gives."""


def size(descriptor: int = 1) -> tuple[int, int] | None:
    """(rows, columns) of the terminal, or None where there is none."""
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
    """Every key goes to the process in the guest, first what was typed before; a descriptor that is no terminal is left alone."""
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
    """Read the complete lines that wait in a terminal which edits lines.

    An end of input (^D) among them is kept by the kernel as a mark and would be read as a NUL byte once the terminal is raw; it is given
    on as the character that was typed. That one is switched off first, so that no further mark is made meanwhile.
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
