"""The parent's end of the socket over which it sets up a process of a container.

Until the program runs, parent and child talk over a pair of SOCK_SEQPACKET sockets, one record per
message. The child sends

* `created` when it is contained, and then waits for `start` (or for a connection to its start
  socket),
* `terminal` with the master of its terminal as a descriptor,
* requests, such as `mounted`, which block it until the parent has answered,
* `hooked` when the startContainer hooks are done,
* an error record (agent.container.init.child_error) if a step fails.

The child's end is close-on-exec. So end of file without an error record means that the program has
been executed, or that the child has died.
"""

import errno
import socket

from agent import loop
from agent.container.init import child_error
from agent.errors import StepFailed
from agent.linux import passed_fds


class ControlSocket:
    """The parent's end. Takes over the socket."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = loop.Socket.of(end)

    @classmethod
    def pair(cls) -> "tuple[ControlSocket, int]":
        """Make a pair. Return the parent's end, and the descriptor of the child's."""
        ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), other.detach()

    def send(self, word: bytes) -> None:
        """Send the child one word.

        Does nothing if it has ended: its last record is still to be read.
        """
        try:
            self._socket.send(word)
        except (BrokenPipeError, ConnectionResetError):
            pass

    async def receive(self, seconds: float | None) -> tuple[bytes, list[int]]:
        """Return the child's next record and its descriptors, at the end of file (b"", []).

        Raises StepFailed after `seconds`. None: no timeout.
        """
        while self._socket.fileno() >= 0:
            try:
                return passed_fds.receive_fds(self._socket, child_error.RECORD_MAX, 1)
            except BlockingIOError:
                pass
            except ConnectionResetError:
                break
            try:
                with loop.timeout(seconds):
                    await loop.readable(self._socket)
            except loop.DescriptorClosed:
                break
            except TimeoutError as error:
                raise StepFailed("contain", f"the child is not done within {seconds} s", errno.ETIMEDOUT) from error
        return b"", []

    def close(self) -> None:
        """Close the socket. Whoever receives gets the end of file."""
        self._socket.close()
