"""The program that an address `binary:///PROGRAM?NAME=VALUE` names, which takes a process's output.

containerd's protocol: the program is run with each name and value of the query as arguments. It
reads standard output from descriptor 3 and standard error from descriptor 4, and closes descriptor
5 once it is ready. Its environment has CONTAINER_ID and CONTAINER_NAMESPACE and nothing else. It
ends by itself at the end of both streams.
"""

import fcntl
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, unquote, urlsplit

from innkeeper.shim import log
from innkeeper.shim.errors import CallError
from innkeeper.wire import status

SCHEME = "binary"
READY_SECONDS = 10.0
"""Seconds that the program may take until it is ready."""
EXIT_SECONDS = 0.02
"""Seconds between the moment when a process's descriptors are closed and when it has ended."""
END_SECONDS = 10.0
"""Seconds that the program may take to end by itself, after the end of its input."""
TERM_SECONDS = 2.0
"""Seconds between SIGTERM and SIGKILL after that."""
FIRST_FREE = 10
"""Descriptors from here on are none of those that the program gets."""

_ending: list[threading.Thread] = []


def is_binary(target: str) -> bool:
    """Return whether `target` names a program."""
    return urlsplit(target).scheme == SCHEME


def command(target: str) -> list[str]:
    """Return the program that `target` names, and its arguments.

    Raises CallError if there is no such program. As in containerd, of a name that comes twice the
    first value counts.
    """
    address = urlsplit(target)
    program = unquote(address.path)
    if address.netloc or not program.startswith("/"):
        raise CallError(
            status.INVALID_ARGUMENT, f"{target}: the logging program must be an absolute path, as in {SCHEME}:///usr/bin/logger"
        )
    if not os.path.isfile(program):
        raise CallError(status.NOT_FOUND, f"{target}: no such logging program: {program}")
    if not os.access(program, os.X_OK):
        raise CallError(status.INVALID_ARGUMENT, f"{target}: the logging program {program} is not executable")
    arguments: dict[str, str] = {}
    for name, value in parse_qsl(address.query, keep_blank_values=True):
        arguments.setdefault(name, value)
    return [program, *(word for pair in arguments.items() for word in pair)]


class Logger:
    """One run of the program.

    `stdout` and `stderr` are the ends to write to, which the caller owns. It has to call `closed`
    for each of them.
    """

    def __init__(self, target: str, id: str, namespace: str) -> None:
        """Start the program for the process `id`, and wait until it is ready.

        Raises CallError and OSError.
        """
        self._target = target
        argv = command(target)
        with _pipe() as out, _pipe() as error, _pipe() as ready:
            actions = [(os.POSIX_SPAWN_DUP2, source, number) for source, number in ((out[0], 3), (error[0], 4), (ready[1], 5))]
            environment = {"CONTAINER_ID": id, "CONTAINER_NAMESPACE": namespace}
            self.pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions, setsid=True)
            self._descriptor = _open(self.pid)
            os.close(ready.pop())
            try:
                self._await(ready[0])
            except BaseException:
                self._end(0)
                raise
            self.stdout, self.stderr = out.pop(), error.pop()
        self._ends = 2

    def _await(self, ready: int) -> None:
        """Wait until the program closes its descriptor 5, or writes to it."""
        if not _readable(ready, READY_SECONDS):
            raise CallError(status.DEADLINE_EXCEEDED, f"{self._target}: the logging program was not ready within {READY_SECONDS:.0f} s")
        if not os.read(ready, 1) and _readable(self._descriptor, EXIT_SECONDS):
            raise CallError(status.UNAVAILABLE, f"{self._target}: the logging program ended before it was ready")

    def closed(self) -> None:
        """Note that one end is closed. After the second the program ends, and a thread reaps it."""
        self._ends -= 1
        if not self._ends:
            thread = threading.Thread(target=self._end, args=(END_SECONDS,), name=f"end of logger {self.pid}", daemon=True)
            _ending.append(thread)
            thread.start()

    def _end(self, grace: float) -> None:
        """Wait for the program's end. Insist after `grace` seconds."""
        if not _readable(self._descriptor, grace):
            log.error(f"{self._target}: the logging program did not end at the end of its input")
            signal.pidfd_send_signal(self._descriptor, signal.SIGTERM)
            if not _readable(self._descriptor, TERM_SECONDS):
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._descriptor)


def finish() -> None:
    """Wait for the programs that are ending, before the shim ends itself."""
    deadline = time.monotonic() + END_SECONDS + TERM_SECONDS
    for thread in _ending:
        thread.join(max(0.0, deadline - time.monotonic()))


def _open(pid: int) -> int:
    """Return the pidfd of a child that has just been started. Raises OSError.

    If that fails, the child is killed and reaped.
    """
    try:
        return os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


@contextmanager
def _pipe() -> Iterator[list[int]]:
    """Context manager: the two ends of a pipe, none of them a low number.

    Those left in the list are closed at the end.
    """
    ends: list[int] = []
    try:
        lows = os.pipe()
        try:
            for low in lows:  # one by one: what is made is closed if the next fails
                ends.append(fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE))
        finally:
            for low in lows:
                os.close(low)
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
