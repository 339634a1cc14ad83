"""Pumps between a process in the guest and descriptors of this process.

Each stream has one thread, which makes blocking calls and does no work per byte.
"""

import os
import select
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import queue

READ_SIZE = 1 << 20
"""Bytes per read request, far below the 4 MiB limit of a message on the wire."""
WRITE_SIZE = 512 << 10


class Streams(Protocol):
    """The standard streams of one guest process, such as `innkeeper.engine.guest_agent.Process`."""

    def read_stdout(self, size: int) -> bytes:
        """Return the next bytes of its output, or b"" at the end."""

    def read_stderr(self, size: int) -> bytes:
        """Return the next bytes of its standard error, or b"" at the end."""

    def write_stdin(self, data: bytes) -> int:
        """Write to its standard input and return how many bytes were taken.

        Raises BrokenPipeError if the process has closed its end.
        """

    def close_stdin(self) -> None:
        """Close its standard input."""


class Pump(threading.Thread):
    """A thread that keeps the exception that ended it, for the thread that joins it.

    It puts itself into `ended` when it ends.
    """

    def __init__(self, name: str, work: Callable[[], None], ended: "queue.SimpleQueue[Pump] | None" = None) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._ended = ended
        self.failure: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - the edge of a thread: finish() raises it in the thread that waits
            self.failure = error
        finally:
            if self._ended is not None:
                self._ended.put(self)

    def finish(self) -> None:
        """Wait until the thread ends, then raise the exception that ended it, if any."""
        self.join()
        if self.failure is not None:
            raise self.failure


def output(read: Callable[[int], bytes], write: Callable[[bytes], None], name: str, ended: "queue.SimpleQueue[Pump] | None" = None) -> Pump:
    """Start a pump that copies from `read` to `write` until `read` returns b""."""

    def work() -> None:
        while data := read(READ_SIZE):
            write(data)

    return Pump(name, work, ended)


def to_descriptor(descriptor: int) -> Callable[[bytes], None]:
    """Return a function that writes all its data to `descriptor`, in order."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:
                # O_NONBLOCK is shared by all holders of a terminal or pipe: another program set it.
                select.select([], [descriptor], [])

    return write


class StdinPump:
    """A pump that writes `first`, then what it reads from `descriptor`, to the process.

    `stop` ends it even while it waits for input.
    """

    def __init__(self, streams: Streams, descriptor: int, first: bytes = b"") -> None:
        self._streams = streams
        self._first = first
        self._descriptor = descriptor
        self._ended = False
        self._wake_read, self._wake_write = os.pipe()
        self._pump = Pump("stdin", self._work)

    def _work(self) -> None:
        """Copy until end of file, `stop` or the end of the process.

        Only an end of file closes the process's standard input.
        """
        try:
            self._write(self._first)
            while not self._ended:
                if not self._wait_readable():
                    return
                self._write(self._gather())
        except BrokenPipeError:
            return  # the process reads no more: its exit status says why
        self._streams.close_stdin()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._streams.write_stdin(bytes(view)) :]

    def _wait_readable(self) -> bool:
        """Wait for input. Return False if `stop` was called.

        A thread that blocks in read(2) cannot be interrupted. So it waits in poll(2) for the
        descriptor or for the pipe that `stop` writes to.
        """
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLIN)
        waiting.register(self._wake_read, select.POLLIN)
        return not any(descriptor == self._wake_read for descriptor, _ in waiting.poll())

    def _gather(self) -> bytes:
        """Read the bytes available now, up to WRITE_SIZE.

        A pipe yields 64 KiB per read, and a call to the agent costs the same for more.
        """
        parts = [os.read(self._descriptor, WRITE_SIZE)]
        more = select.poll()
        more.register(self._descriptor, select.POLLIN)
        while parts[-1] and sum(map(len, parts)) < WRITE_SIZE and more.poll(0):
            parts.append(os.read(self._descriptor, WRITE_SIZE))
        self._ended = not parts[-1]
        return b"".join(parts)

    def stop(self) -> None:
        """End the copying.

        Bytes read but not yet written may be lost: the process has ended anyway.
        """
        os.write(self._wake_write, b"x")
        self._pump.join(timeout=5)
        if not self._pump.is_alive():
            os.close(self._wake_read)
            os.close(self._wake_write)
