"""What containerd gives a process as its standard streams: fifos, and for logs files and programs.

Output is never lost: a fifo is opened once its reader is there, so what a program writes that ends
at once arrives. It is also opened for reading here, so that it does not break while containerd
restarts.
"""

import errno
import os
import stat
import time
from urllib.parse import unquote, urlsplit

from innkeeper.shim import log, logger
from innkeeper.shim.errors import unimplemented
from innkeeper.shim.process import Stdio

READER_SECONDS = 10.0
"""Seconds to wait for the reader of an output."""
POLL_SECONDS = 0.005


def check(stdio: Stdio) -> None:
    """Raise CallError if output cannot be written to what `stdio` names."""
    for target in _targets(stdio):
        scheme = urlsplit(target).scheme
        if scheme == logger.SCHEME:
            logger.command(target)
        elif scheme not in ("", "fifo", "file"):
            raise unimplemented(f"{target}: this shim writes output to fifos, files and programs, not to {scheme}://")
    if len({target for target in _targets(stdio) if target}) > 1 and any(map(logger.is_binary, _targets(stdio))):
        raise unimplemented(f"{stdio.stdout}: one logging program takes both outputs, standard error cannot go to {stdio.stderr}")


def outputs(stdio: Stdio) -> "list[Output]":
    """Open the outputs of a process: both, or the one of a terminal.

    Raises OSError and CallError.
    """
    check(stdio)
    targets = _targets(stdio)
    if any(map(logger.is_binary, targets)):
        program = logger.Logger(next(filter(None, targets)), stdio.id, stdio.namespace)
        ends = [
            Output(target, [descriptor], program) for target, descriptor in zip(targets, (program.stdout, program.stderr), strict=False)
        ]
        if stdio.terminal:
            os.close(program.stderr)
            program.closed()
        return ends
    opened: list[Output] = []
    try:
        for target in targets:
            opened.append(Output(target, _open(target)))
    except BaseException:
        for end in opened:
            end.close()
        raise
    return opened


def _targets(stdio: Stdio) -> tuple[str, ...]:
    return (stdio.stdout,) if stdio.terminal else (stdio.stdout, stdio.stderr)


def _open(target: str) -> list[int]:
    """Return the descriptors of a fifo, a file, or nothing. The first one is for writing."""
    if not target:
        return []
    address = urlsplit(target)
    path = unquote(address.path) if address.scheme else target
    if address.scheme != "file" and stat.S_ISFIFO(os.stat(path).st_mode):
        return _open_fifo(path)
    return [os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)]


class Output:
    """The end of one output stream: a fifo, a file, a program's input, or nothing."""

    def __init__(self, target: str, descriptors: list[int], program: logger.Logger | None = None) -> None:
        """Own `descriptors`, the first of which is written to.

        `program` reads it, and ends with it.
        """
        self._target = target
        self._descriptors = descriptors
        self._program = program

    def write(self, data: bytes) -> None:
        """Write all of `data`.

        After a failure it is dropped: the process must not block for ever.
        """
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
        program, self._program = self._program, None
        if program is not None:
            program.closed()


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
    try:
        os.set_blocking(writing, True)
        return [writing, os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)]
    except OSError:
        os.close(writing)
        raise


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
