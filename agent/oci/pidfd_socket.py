"""`--pidfd-socket`: send a pidfd (pidfd_open(2)) of the process to a unix socket, as runc does."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from agent.errors import Refused, StepFailed
from agent.oci.arguments import Option, Parsed

OPTION = Option("pidfd-socket", "unix socket that is sent a pidfd of the process", "PATH")


class Receiver:
    """The receiver of a pidfd. Without the option there is none, and nothing is sent."""

    def __init__(self, connection: socket.socket | None) -> None:
        self._connection = connection

    def send(self, name: bytes, pidfd: int) -> None:
        """Send a pidfd under a name. Raises StepFailed.

        The name is `standard` for a container's first process and `setns` for another.
        """
        if self._connection is None:
            return
        try:
            socket.send_fds(self._connection, [name], [pidfd])
        except OSError as error:
            raise StepFailed("send the pidfd", f"to --pidfd-socket: {error.strerror}", error.errno or 0) from error


@contextmanager
def connected(parsed: Parsed) -> Iterator[Receiver]:
    """Context manager: connect to the option's socket. Raises Refused.

    This is done before the process is made, so that a wrong path leaves nothing behind.
    """
    path = parsed.text(OPTION.name)
    if not path:
        yield Receiver(None)
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(path)
        except OSError as error:
            raise Refused("--pidfd-socket", f"{path}: {error.strerror}") from error
        yield Receiver(connection)
