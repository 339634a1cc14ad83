"""The files that containerd gives a process as its standard streams: fifos, and files for logs.

Output is never lost: a fifo is opened once its reader is there, so what a program writes that ends
at once arrives. It is also opened for reading here, so that it does not break while containerd
restarts.
"""

import errno
import os
import stat
import time
from urllib.parse import urlsplit

from innkeeper.shim import log
from innkeeper.shim.errors import unimplemented

READER_SECONDS = 10.0
"""Seconds to wait for the reader of an output."""
POLL_SECONDS = 0.005


def check(target: str) -> None:
    """Raise CallError if output cannot be written to `target`."""
    scheme = urlsplit(target).scheme
    if scheme not in ("", "fifo", "file"):
        raise unimplemented(f"{target}: this shim writes output to fifos and files only, not to {scheme}://")


class Output:
    """The end of one output stream: a fifo, a file, or nothing."""

    def __init__(self, target: str) -> None:
        """Open `target`, a path or an address of containerd. Raises OSError and CallError."""
        self._target = target
        self._descriptors: list[int] = []
        if not target:
            return
        check(target)
        address = urlsplit(target)
        path = address.path
        if address.scheme != "file" and stat.S_ISFIFO(os.stat(path).st_mode):
            self._descriptors = _open_fifo(path)
        else:
            self._descriptors = [os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)]

    def write(self, data: bytes) -> None:
        """Write all of `data`. After a failure it is dropped: the process must not block for ever."""
        view = memoryview(data)
        try:
            while view and self._descriptors:
                view = view[os.write(self._descriptors[0], view) :]
        except OSError as error:
            log.error(f"{self._target}: {error}")
            self.close()

    def close(self) -> None:
        """Close the stream, which ends it for its reader. May be called twice."""
        descriptors, self._descriptors = self._descriptors, []
        for descriptor in descriptors:
            os.close(descriptor)


def _open_fifo(path: str) -> list[int]:
    """Return a descriptor for writing, which blocks, and one for reading."""
    deadline = time.monotonic() + READER_SECONDS
    while True:
        try:
            writing = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            break
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > deadline:
                raise
        time.sleep(POLL_SECONDS)
    os.set_blocking(writing, True)
    return [writing, os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)]


class Input:
    """The fifo of a process's standard input.

    It ends when its last writer closes it. With `held` this process is a writer too, until `end`:
    so a client may leave and another one come. Without, an end that comes before the process
    exists is not missed, for which clients send no call.
    """

    def __init__(self, path: str, *, held: bool) -> None:
        """Open the fifo at `path`. Raises OSError."""
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._writing = -1
        try:
            if held:
                self._writing = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            os.close(self.descriptor)
            raise

    def end(self) -> None:
        """Hold it open no longer. May be called twice."""
        writing, self._writing = self._writing, -1
        if writing >= 0:
            os.close(writing)

    def close(self) -> None:
        """Close the descriptor, once nobody reads it any more."""
        self.end()
        os.close(self.descriptor)
