"""A process in the foreground whose output nobody reads any more, on either of its streams."""

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from innkeeper.engine import attach, streams

SECONDS = 20.0


class Silent:
    """A process that writes one line to `stream`. The other one stays open until the process is killed."""

    def __init__(self, stream: str) -> None:
        self.signals: list[int] = []
        self.ended_by_itself = False
        self._stream = stream
        self._killed = threading.Event()

    def _read(self, stream: str) -> bytes:
        if stream == self._stream:
            return b"line\n"
        self.ended_by_itself = not self._killed.wait(SECONDS)
        return b""

    def read_stdout(self, size: int) -> bytes:
        return self._read("stdout")

    def read_stderr(self, size: int) -> bytes:
        return self._read("stderr")

    def close_stdin(self) -> None:
        """It reads no input."""

    def signal(self, number: int) -> None:
        self.signals.append(number)
        self._killed.set()


def nobody_reads(descriptor: int) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        raise BrokenPipeError

    return write


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_it_is_killed_as_by_sigpipe(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "to_descriptor", nobody_reads)
    process: Any = Silent(stream)
    assert attach.attach_streams(process, interactive=False, tty=False) == 128 + signal.SIGPIPE
    assert (process.signals, process.ended_by_itself) == ([signal.SIGKILL], False)
