"""Pumps between a process in the guest and this process's descriptors. One thread a stream, blocking calls, no per-byte work."""

import os
import select
import threading
from collections.abc import Callable
from typing import Protocol

READ_SIZE = 1 << 20
"""Bytes asked for at a time; far below the wire's limit of 4 MiB a message."""
WRITE_SIZE = 512 << 10


class Streams(Protocol):
    """The standard streams of one process in the guest; `innkeeper.engine.guest_agent.Process` is one."""

    def read_stdout(self, size: int) -> bytes:
        """The next bytes, b"" at the end."""

    def read_stderr(self, size: int) -> bytes:
        """As read_stdout."""

    def write_stdin(self, data: bytes) -> int:
        """How many bytes were taken. BrokenPipeError when the process has closed its end."""

    def close_stdin(self) -> None:
        """End of file for the process."""


class Pump(threading.Thread):
    """A thread that keeps what ended it, so that whoever joins it can raise it."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self.failure: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - the edge of a thread: finish() raises it in the thread that waits
            self.failure = error

    def finish(self) -> None:
        """Wait for the end and raise what ended it, if anything did."""
        self.join()
        if self.failure is not None:
            raise self.failure


def output(read: Callable[[int], bytes], write: Callable[[bytes], None], name: str) -> Pump:
    """Copy from `read` until its end into `write`."""

    def work() -> None:
        while data := read(READ_SIZE):
            write(data)

    return Pump(name, work)


def to_descriptor(descriptor: int) -> Callable[[bytes], None]:
    """A writer that writes everything to `descriptor`, in order."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:  # somebody made our terminal or pipe non-blocking
                select.select([], [descriptor], [])

    return write


class StdinPump:
    """Copies `descriptor` into the process, after `first`; `stop` ends it even while it waits for input."""

    def __init__(self, streams: Streams, descriptor: int, first: bytes = b"") -> None:
        self._streams = streams
        self._first = first
        self._descriptor = descriptor
        self._ended = False
        self._wake_read, self._wake_write = os.pipe()
        self._pump = Pump("stdin", self._work)

    def _work(self) -> None:
        try:
            self._write(self._first)
            while not self._ended:
                if not self._wait_readable():
                    return
                self._write(self._gather())
        except BrokenPipeError:
            return  # the process does not want more; its exit status tells the rest
        self._streams.close_stdin()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._streams.write_stdin(bytes(view)) :]

    def _wait_readable(self) -> bool:
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLIN)
        waiting.register(self._wake_read, select.POLLIN)
        return not any(descriptor == self._wake_read for descriptor, _ in waiting.poll())

    def _gather(self) -> bytes:
        """What is there now, up to WRITE_SIZE: a pipe gives 64 KiB a read, and a call costs the same for more."""
        parts = [os.read(self._descriptor, WRITE_SIZE)]
        more = select.poll()
        more.register(self._descriptor, select.POLLIN)
        while parts[-1] and sum(map(len, parts)) < WRITE_SIZE and more.poll(0):
            parts.append(os.read(self._descriptor, WRITE_SIZE))
        self._ended = not parts[-1]
        return b"".join(parts)

    def stop(self) -> None:
        """End the copying. What was read from the descriptor has been written or will not be: the process has ended."""
        os.write(self._wake_write, b"x")
        self._pump.join(timeout=5)
        if not self._pump.is_alive():
            os.close(self._wake_read)
            os.close(self._wake_write)
