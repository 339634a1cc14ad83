"""Descriptors: the tasks that wait for them, and objects that own one each.

Closing an object removes its descriptor from the loop first. The docstring of the package says why.
"""

import _socket as socket  # the public module imports enum and selectors: too slow at start-up
import os
import select

from agent.loop.task import PARK, forget, look_again

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Self

    from agent.loop.reactor import Loop
    from agent.loop.task import Task

READ: "Final" = select.EPOLLIN | select.EPOLLPRI
WRITE: "Final" = select.EPOLLOUT
EBADF: "Final" = 9


class DescriptorClosed(OSError):
    """Raised in a task that waits for a descriptor, or uses one, after its owner has closed it."""

    def __init__(self, fd: int) -> None:
        super().__init__(EBADF, f"descriptor {fd} was closed by its owner")


class Watched:
    """The tasks that wait for one descriptor.

    `closed` is set when the descriptor was closed meanwhile. Its number may be reused by then, so
    the waiters must not touch the epoll registration of that number.
    """

    __slots__ = ("closed", "readers", "writers")

    def __init__(self) -> None:
        self.closed = False
        self.readers: list[Task[Any]] = []
        self.writers: list[Task[Any]] = []


class WatchedDescriptors:
    """The descriptors that tasks of a loop wait for, as epoll watches them."""

    def __init__(self, loop: "Loop") -> None:
        self.epoll = select.epoll()
        self._loop = loop
        self._wake = loop.wake
        self._pid = os.getpid()
        self._fds: dict[int, Watched] = {}

    async def wait(self, fd: int, events: int) -> None:
        """Park until the descriptor is ready for `events` (READ or WRITE).

        Returns at once for a regular file. Raises DescriptorClosed if the owner of the descriptor
        closes it meanwhile.
        """
        task = self._loop.running()
        watched = self._fds.get(fd) or Watched()
        waiting = watched.readers if events == READ else watched.writers
        waiting.append(task)
        try:
            if not self._arm(fd, watched):
                waiting.clear()
                return
            while task in waiting:
                await PARK
        except BaseException:
            if task in waiting:
                waiting.remove(task)
                self._arm(fd, watched)
            raise
        if watched.closed:
            raise DescriptorClosed(fd)

    def _arm(self, fd: int, watched: "Watched") -> bool:
        """Make epoll watch what the tasks in `watched` wait for.

        Returns False for a regular file, which epoll refuses (EPERM) because it is always ready.
        """
        if watched.closed:
            return True
        mask = (READ if watched.readers else 0) | (WRITE if watched.writers else 0)
        if mask and fd not in self._fds:
            try:
                self.epoll.register(fd, mask)
            except PermissionError:
                return False
            self._fds[fd] = watched
        elif fd in self._fds:
            self._change(fd, mask)
        return True

    def _change(self, fd: int, mask: int) -> None:
        """Change what epoll watches, or end it if `mask` is 0.

        ENOENT means that the descriptor was closed without the loop, so epoll has dropped it. The
        number may belong to another file by now: it is registered anew if a task waits for it.
        """
        try:
            if mask:
                self.epoll.modify(fd, mask)
            else:
                del self._fds[fd]
                self.epoll.unregister(fd)
        except FileNotFoundError:
            if mask:
                self.epoll.register(fd, mask)
        except OSError:
            self.forget(fd)

    def forget(self, fd: int) -> None:
        """Remove a descriptor from epoll before it is closed, and wake the tasks that wait for it.

        Leaves epoll alone in a forked child. The child has a copy of the table, but the epoll
        instance is shared with the parent: removing the number there would end the parent's wait.
        """
        watched = self._fds.pop(fd, None)
        if watched is None or os.getpid() != self._pid:
            return
        try:
            self.epoll.unregister(fd)
        except OSError:
            pass  # it has been closed already, without the loop
        watched.closed = True
        self._wake_all(watched.readers)
        self._wake_all(watched.writers)

    def look_again(self, fd: int) -> None:
        """Wake the tasks that wait to read, as if there were data.

        They try to read, and then notice what else has changed.
        """
        if fd in self._fds:
            self.ready(fd, READ)

    def ready(self, fd: int, events: int) -> None:
        """Wake the tasks that wait for one of `events`, and watch only for the others from now on.

        An error or a hang-up wakes readers and writers: each of them gets the error from its own
        system call. epoll reports both whether or not they are asked for.
        """
        watched = self._fds.get(fd)
        if watched is None:
            return
        ended = events & (select.EPOLLERR | select.EPOLLHUP)
        if events & READ or ended:
            self._wake_all(watched.readers)
        if events & WRITE or ended:
            self._wake_all(watched.writers)
        self._arm(fd, watched)

    def _wake_all(self, tasks: "list[Task[Any]]") -> None:
        for task in tasks:
            self._wake(task)
        tasks.clear()


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
