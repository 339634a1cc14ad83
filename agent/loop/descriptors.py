"""Descriptors as objects: each has one owner, and closing it tells the loop first (why: see the package)."""

import _socket as socket  # the public module imports enum and selectors, which start-up does without
import os

from agent.loop.reactor import DescriptorClosed
from agent.loop.task import forget, look_again

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self


class Fd:
    """A descriptor that belongs to whoever holds this object: closed once, by `close` or at the end of `with`."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    @property
    def closed(self) -> bool:
        return self._number < 0

    def fileno(self) -> int:
        """Return the number, for a system call. Raises DescriptorClosed."""
        if self._number < 0:
            raise DescriptorClosed(self._number)
        return self._number

    def detach(self) -> int:
        """Return the number to a new owner; whoever waits for it here is woken with DescriptorClosed. Raises DescriptorClosed."""
        number = self.fileno()
        self._number = -1
        forget(number)
        return number

    def wake_readers(self) -> None:
        """Wake whoever waits to read as if there were something: they try, and find what else has changed."""
        if self._number >= 0:
            look_again(self._number)

    def close(self) -> None:
        """Wake whoever waits for the descriptor with DescriptorClosed, make epoll forget the number, then close it. Again: nothing."""
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
        """Take over the descriptor of a socket of another class."""
        taken = cls(other.family, other.type, other.proto, other.detach())
        taken.setblocking(False)
        return taken

    def detach(self) -> int:
        """Return the number to a new owner; -1 if it is closed. Whoever waits for it here is woken with DescriptorClosed."""
        number = super().detach()
        if number >= 0:
            forget(number)
        return number

    def close(self) -> None:
        """Wake whoever waits for the socket with DescriptorClosed, make epoll forget the number, then close it."""
        number = self.detach()
        if number >= 0:
            os.close(number)

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def pipe() -> tuple[Fd, Fd]:
    """Make a pipe, close-on-exec: (read end, write end), both blocking. Raises OSError."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    return Fd(read_end), Fd(write_end)


def socket_pair(kind: int = socket.SOCK_STREAM) -> tuple[Socket, Socket]:
    """Make two connected unix sockets. Raises OSError."""
    one, other = socket.socketpair(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
    return Socket.of(one), Socket.of(other)
