"""Descriptors as objects with one owner each.

Closing one of them removes it from the loop first. The docstring of the package says why.
"""

import _socket as socket  # the public module imports enum and selectors: too slow at start-up
import os

from agent.loop.reactor import DescriptorClosed
from agent.loop.task import forget, look_again

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self


class Fd:
    """A descriptor that belongs to the holder of this object.

    It is closed once, by `close` or at the end of a `with` block.
    """

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    @property
    def closed(self) -> bool:
        """True once the descriptor is closed or detached."""
        return self._number < 0

    def fileno(self) -> int:
        """Return the descriptor number, for a system call. Raises DescriptorClosed."""
        if self._number < 0:
            raise DescriptorClosed(self._number)
        return self._number

    def detach(self) -> int:
        """Give up the ownership and return the number, which the caller now has to close.

        Tasks that wait for the descriptor are woken with DescriptorClosed. Raises DescriptorClosed
        if it is closed already.
        """
        number = self.fileno()
        self._number = -1
        forget(number)
        return number

    def wake_readers(self) -> None:
        """Wake the tasks that wait to read, as if there were data.

        They try to read, and then notice what else has changed.
        """
        if self._number >= 0:
            look_again(self._number)

    def close(self) -> None:
        """Close the descriptor, after waking its waiters with DescriptorClosed.

        epoll forgets the number before it is closed. Does nothing if the descriptor is closed
        already.
        """
        if self._number >= 0:
            os.close(self.detach())

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Socket(socket.socket):
    """A non-blocking socket that is closed like an Fd."""

    @classmethod
    def of(cls, other: socket.socket) -> "Self":
        """Take over the descriptor of a socket of another class and make it non-blocking."""
        taken = cls(other.family, other.type, other.proto, other.detach())
        taken.setblocking(False)
        return taken

    def detach(self) -> int:
        """Give up the ownership and return the number, or -1 if the socket is closed.

        Tasks that wait for the socket are woken with DescriptorClosed.
        """
        number = super().detach()
        if number >= 0:
            forget(number)
        return number

    def close(self) -> None:
        """Close the socket, after waking its waiters with DescriptorClosed.

        epoll forgets the number before it is closed. Does nothing if the socket is closed already.
        """
        number = self.detach()
        if number >= 0:
            os.close(number)

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def pipe() -> tuple[Fd, Fd]:
    """Make a pipe, close-on-exec and blocking: (read end, write end). Raises OSError."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    return Fd(read_end), Fd(write_end)


def socket_pair(kind: int = socket.SOCK_STREAM) -> tuple[Socket, Socket]:
    """Make two connected unix sockets, close-on-exec and non-blocking. Raises OSError."""
    one, other = socket.socketpair(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
    return Socket.of(one), Socket.of(other)
