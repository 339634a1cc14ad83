"""The pumps carry every byte, in order, and end when they should."""

import os
import threading
from typing import Any

import pytest

from innkeeper.engine import streams


class Sink:
    """A process that takes at most `most` bytes at a time and then, perhaps, no more."""

    def __init__(self, most: int = 1 << 30, capacity: int | None = None) -> None:
        self.taken = bytearray()
        self.closed = threading.Event()
        self._most = most
        self._capacity = capacity

    def write_stdin(self, data: bytes) -> int:
        if self._capacity is not None and len(self.taken) >= self._capacity:
            raise BrokenPipeError("closed")
        self.taken += data[: self._most]
        return min(len(data), self._most)

    def close_stdin(self) -> None:
        self.closed.set()

    def read_stdout(self, size: int) -> bytes:
        return b""

    read_stderr = read_stdout


@pytest.fixture
def pipe() -> Any:
    read, write = os.pipe()
    yield read, write
    for descriptor in (read, write):
        try:
            os.close(descriptor)
        except OSError:
            pass


@pytest.mark.parametrize("most", [1 << 30, 1000])
def test_input_arrives_whole_and_then_ends(pipe: Any, most: int) -> None:
    read, write = pipe
    sink = Sink(most)
    data = os.urandom(300_000)
    pump = streams.StdinPump(sink, read)
    view = memoryview(data)
    while view:
        view = view[os.write(write, view) :]
    os.close(write)
    assert sink.closed.wait(10)
    pump.stop()
    assert bytes(sink.taken) == data


def test_input_that_nobody_reads_ends_the_pump(pipe: Any) -> None:
    read, write = pipe
    sink = Sink(capacity=1)
    pump = streams.StdinPump(sink, read)
    os.write(write, b"x")
    while not sink.taken:
        pass
    os.write(write, b"y")
    pump.stop()
    assert (bytes(sink.taken), sink.closed.is_set()) == (b"x", False)


def test_stop_ends_a_pump_that_waits(pipe: Any) -> None:
    read, _ = pipe
    sink = Sink()
    streams.StdinPump(sink, read).stop()
    assert not sink.closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "stdin"]


def test_output_is_copied_to_its_end(pipe: Any) -> None:
    read, write = pipe
    pieces = [b"one ", b"two", b""]
    streams.output(lambda size: pieces.pop(0), streams.to_descriptor(write), "stdout").finish()
    assert os.read(read, 100) == b"one two"


def test_what_ends_a_pump_is_raised_to_who_waits(pipe: Any) -> None:
    read, write = pipe
    os.close(read)
    pump = streams.output(lambda size: b"x", streams.to_descriptor(write), "stdout")
    with pytest.raises(BrokenPipeError):
        pump.finish()
