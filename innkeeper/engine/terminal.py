"""The user's terminal: raw while a process in the guest has it, and always as it was afterwards."""

import os
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager


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
def raw(descriptor: int = 0) -> Iterator[None]:
    """Every key goes to the process in the guest; a descriptor that is no terminal is left alone."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor, termios.TCSANOW)
    try:
        yield
    finally:
        sys.stderr.flush()
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
