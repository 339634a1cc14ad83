"""The user's terminal: what was typed before it is raw, and how it is afterwards."""

import os
import select
import termios

import pytest

from innkeeper.engine import terminal


@pytest.mark.parametrize("typed", [b"", b"\x04", b"one\n\x04", b"one\npart"])
def test_an_end_that_was_typed_is_no_nul(typed: bytes) -> None:
    """The kernel keeps it as a mark, which reads as a NUL byte once the terminal is raw; an unfinished line is read later.

    The kernel works off what is written to a pty a little later, so how much of it is there before the terminal is raw is not certain.
    """
    master, slave = os.openpty()
    before = termios.tcgetattr(slave)
    os.write(master, typed)
    if typed:
        assert select.select([slave], [], [], 60)[0]
    with terminal.raw(slave) as given:
        os.write(master, b"\x04!")
        read = b""
        while not read.endswith(b"!"):
            assert select.select([slave], [], [], 60)[0]
            read += os.read(slave, 100)
        assert given + read == typed + b"\x04!"
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_what_is_no_terminal_is_left_alone() -> None:
    read, write = os.pipe()
    os.write(write, b"data")
    with terminal.raw(read) as given:
        assert given == b""
    assert os.read(read, 10) == b"data"
    os.close(read)
    os.close(write)
