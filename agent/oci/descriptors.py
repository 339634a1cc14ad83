"""Descriptors that pass between the caller, the program and unix sockets of the engine.

The caller's descriptors from 3 on go to the program. The terminal's master and a pidfd
(pidfd_open(2)) go to sockets, as runc does it: one descriptor with a name.
"""

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.container.stdio import InheritedStdio, Stdio
from agent.errors import Refused, StepFailed
from agent.oci.arguments import Option, Parsed

CONSOLE_SOCKET = Option("console-socket", "unix socket that is sent the terminal's master", "PATH")
PIDFD_SOCKET = Option("pidfd-socket", "unix socket that is sent a pidfd of the process", "PATH")
PRESERVE_FDS = Option("preserve-fds", "pass N more descriptors, from 3 on, to the program", "N")
FIRST = 3


def preserved_fds(parsed: Parsed) -> tuple[tuple[int, ...], list[str]]:
    """Return the descriptors and the environment entries that describe them.

    Those of socket activation come first (sd_listen_fds(3)). Raises Refused for a descriptor that
    the caller has not opened. Our own are recognised by close-on-exec, which all of them have, so
    none is passed on by mistake.
    """
    activated = 0
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS", "").isdecimal():
        activated = int(os.environ["LISTEN_FDS"])
    more = parsed.number(PRESERVE_FDS.name)
    if not 0 <= more <= 1 << 16:
        raise Refused("--preserve-fds", f"{more} is not between 0 and 65536")
    fds = tuple(range(FIRST, FIRST + activated + more))
    for fd in fds:
        try:
            ours = fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        except OSError:
            ours = True
        if ours:
            raise Refused("--preserve-fds", f"descriptor {fd} is not open")
    return fds, [f"LISTEN_FDS={activated}", "LISTEN_PID=1"] if activated else []


def _connect(option: Option, path: str) -> socket.socket:
    """Return a connection to the socket of an option. Raises Refused."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise Refused(f"--{option.name}", f"{path}: {error.strerror}") from error
    return connection


def _send(connection: socket.socket, name: bytes, fd: int, option: Option, what: str) -> None:
    """Send a descriptor under a name. Raises StepFailed."""
    try:
        socket.send_fds(connection, [name], [fd])
    except OSError as error:
        raise StepFailed(f"send the {what}", f"to --{option.name}: {error.strerror}", error.errno or 0) from error


class ConsoleSocket(Stdio):
    """A terminal whose master is sent over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__(True)
        self._socket = _connect(CONSOLE_SOCKET, path)

    def set_pty_master(self, fd: int) -> None:
        """Send the master to the socket. Raises StepFailed."""
        try:
            _send(self._socket, b"/dev/ptmx", fd, CONSOLE_SOCKET, "terminal")
        finally:
            os.close(fd)
            self._socket.close()


def process_stdio(parsed: Parsed, terminal: bool, detached: bool) -> Stdio | None:
    """Return the streams of a process by its options. Raises Refused.

    Returns None for a terminal that this process relays itself.
    """
    path = parsed.text("console-socket")
    if terminal and path:
        return ConsoleSocket(path)
    if terminal and detached:
        raise Refused("--console-socket", "a terminal without this process needs one to go to")
    if path:
        raise Refused("--console-socket", "the process has no terminal")
    return None if terminal else InheritedStdio()


@contextmanager
def pidfd_socket(parsed: Parsed) -> Iterator[Callable[[bytes, int], None]]:
    """Context manager: connect to the socket of --pidfd-socket. Raises Refused.

    Yields a function that sends a pidfd under a name: `standard` for a container's first process,
    `setns` for another. It raises StepFailed, and does nothing without the option. The connection
    is made before the process, so that a wrong path leaves nothing behind.
    """
    path = parsed.text(PIDFD_SOCKET.name)
    if not path:
        yield lambda name, pidfd: None
        return
    with _connect(PIDFD_SOCKET, path) as connection:
        yield lambda name, pidfd: _send(connection, name, pidfd, PIDFD_SOCKET, "pidfd")
