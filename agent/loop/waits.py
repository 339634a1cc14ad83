"""Things that a task can wait for: descriptors, time, and other tasks."""

import time

from agent.loop.descriptors import READ, WRITE
from agent.loop.task import PARK, Cancelled, Task, Waiters, running_loop, spawn, until_ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine
    from types import TracebackType
    from typing import Any, Generic, Literal, TypeVar

    from agent.loop.descriptors import Fd, Socket
    from agent.loop.reactor import Timer

    T = TypeVar("T")
else:
    from agent.loop.task import Generic, T


async def readable(fd: "int | Fd | Socket") -> None:
    """Park until `fd` can be read or is at its end.

    Raises DescriptorClosed if the owner of the descriptor closes it meanwhile.
    """
    await running_loop().descriptors.wait(fd if isinstance(fd, int) else fd.fileno(), READ)


async def writable(fd: "int | Fd | Socket") -> None:
    """Park until `fd` can be written or its other end is closed.

    Raises DescriptorClosed if the owner of the descriptor closes it meanwhile.
    """
    await running_loop().descriptors.wait(fd if isinstance(fd, int) else fd.fileno(), WRITE)


async def exited(pidfd: "int | Fd") -> None:
    """Park until the process behind `pidfd` has ended. The caller then has to reap it.

    Raises DescriptorClosed if the owner of the descriptor closes it meanwhile.
    """
    await readable(pidfd)


async def sleep(seconds: float) -> None:
    """Park for a number of seconds. 0 lets every other ready task run first."""
    loop = running_loop()
    task = loop.running()
    if seconds <= 0:
        loop.wake(task)
        await PARK
        return
    due = time.monotonic() + seconds
    timer = loop.call_at(due, lambda: loop.wake(task))
    try:
        while time.monotonic() < due:
            await PARK
    finally:
        loop.cancel_timer(timer)


class timeout:
    """A time limit in seconds for a block: `with timeout(seconds):`.

    Raises TimeoutError in the block if it is still parked when the time is over. None means no
    limit. Blocks may be nested.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._error = Cancelled()
        self._loop = running_loop()
        self._timer: Timer | None = None
        self._task = self._loop.running()

    def __enter__(self) -> "timeout":
        if self._seconds is not None:
            self._timer = self._loop.call_at(time.monotonic() + self._seconds, self._expire)
        return self

    def _expire(self) -> None:
        """Interrupt the block.

        An interruption that is pending already, for example by a block within this one, comes
        first. Then this one is tried again in the next round, so that neither of them is lost.
        """
        if self._task.pending is None:
            self._task.interrupt(self._error)
        else:
            self._timer = self._loop.call_at(time.monotonic(), self._expire)

    def __exit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, traceback: "TracebackType | None"
    ) -> "Literal[False]":
        if self._timer is not None:
            self._loop.cancel_timer(self._timer)
        if self._task.pending is self._error:
            self._task.pending = None  # it would be thrown outside of the block
        if error is self._error:
            raise TimeoutError(f"not done within {self._seconds} s") from None
        return False


class QueueClosed(Exception):
    """Raised by `Queue.get` on a closed empty queue, and by `put_nowait` on a closed one."""


class Event:
    """A flag that tasks can wait for."""

    def __init__(self) -> None:
        self.is_set = False
        self._waiters = Waiters()

    def set(self) -> None:
        """Set the flag and wake every task that waits for it."""
        self.is_set = True
        self._waiters.wake_all()

    def clear(self) -> None:
        """Clear the flag, so that `wait` parks again."""
        self.is_set = False

    async def wait(self) -> None:
        """Park until the flag is set.

        It is checked again on waking, because it may have been cleared by then.
        """
        while not self.is_set:
            await self._waiters.wait()


class Lock:
    """Mutual exclusion between tasks, in the order of arrival: `async with lock:`."""

    def __init__(self) -> None:
        self.owner: Task[Any] | None = None
        self._queue: list[Task[Any]] = []
        self._reserved: list[Task[Any]] = []

    def reserve(self, task: "Task[Any]") -> None:
        """Give `task` its place in the order now, before it runs. Its next `async with` takes it.

        The task must come to that, so it may not be cancelled before (it is shielded).
        """
        self._reserved.append(task)
        self._line_up(task)

    async def __aenter__(self) -> None:
        task = running_loop().running()
        if task in self._reserved:
            self._reserved.remove(task)
        else:
            self._line_up(task)
        try:
            while self.owner is not task:
                await PARK
        except BaseException:
            if self.owner is task:
                self._release()  # it was interrupted after it got the lock and before it ran
            else:
                self._queue.remove(task)
            raise

    async def __aexit__(self, *error: object) -> None:
        self._release()

    def _line_up(self, task: "Task[Any]") -> None:
        if self.owner is None:
            self.owner = task
        else:
            self._queue.append(task)

    def _release(self) -> None:
        """Hand the lock to the next waiter, if there is one.

        The ownership passes here and not when that task runs. Otherwise a third task could take
        the lock in between, out of turn.
        """
        self.owner = self._queue.pop(0) if self._queue else None
        if self.owner is not None:
            running_loop().wake(self.owner)


class Queue(Generic[T]):
    """An unbounded queue between tasks. A user that needs a bound checks `len`."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._waiters = Waiters()
        self.closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put_nowait(self, item: "T") -> None:
        """Add an item. Raises QueueClosed."""
        if self.closed:
            raise QueueClosed
        self._items.append(item)
        self._waiters.wake_one()

    def close(self) -> None:
        """Accept no more items. `get` returns the remaining ones, then raises QueueClosed."""
        self.closed = True
        self._waiters.wake_all()

    async def get(self) -> "T":
        """Wait for an item and return it. Raises QueueClosed if none can come any more."""
        while not self._items:
            if self.closed:
                raise QueueClosed
            await self._waiters.wait()
        return self._items.pop(0)


async def gather(*awaitables: "Awaitable[Any]") -> None:
    """Run several awaitables at once, wait for all of them, then raise the first error.

    If the caller is cancelled, the awaitables are cancelled too and their cleanup is waited for.
    """

    async def one(awaitable: "Awaitable[Any]") -> None:
        await awaitable

    tasks = [spawn(one(item), name="gather") for item in awaitables]
    for task in tasks:
        task.waiters.held = True  # their errors are raised here
    await until_ended(tasks, cancel=True)
    for task in tasks:
        await task.wait()


async def shield(work: "Coroutine[Any, Any, T]") -> "T":
    """Run `work` to its end even if the caller is cancelled or its time limit expires.

    The interruption is raised when `work` is done. This is for cleanup and for what must not be
    left half done. `work` has to limit its own time.
    """
    task = spawn(work, name=f"cleanup of {running_loop().running().name}")
    task.shielded = task.waiters.held = True
    await until_ended([task])
    return await task.wait()


class TaskGroup:
    """Tasks that have all ended at the end of the block: `async with TaskGroup() as group:`.

    When one of them fails, or the block does, the others are cancelled. The block ends after all
    have ended, and raises the first error.
    """

    def __init__(self) -> None:
        self._owner = running_loop().running()
        self._tasks: list[Task[Any]] = []
        self._failure: Exception | None = None
        self._interruption = Cancelled()
        self._leaving = False

    def spawn(self, work: "Coroutine[Any, Any, None]", *, name: str) -> "Task[None]":
        """Start a task of the group."""
        task = spawn(work, name=name)
        task.waiters.held = True
        task.on_end = self._ended
        self._tasks.append(task)
        return task

    def cancel(self) -> None:
        """Cancel all tasks of the group. The block itself goes on."""
        for task in self._tasks:
            task.cancel()

    def _ended(self, task: "Task[Any]") -> None:
        """Note the first failure of a task, cancel the others and interrupt the block.

        The block is not interrupted if it is at its end already, or if another interruption is
        pending.
        """
        if self._failure is not None or not isinstance(task.exception, Exception):
            return
        self._failure = task.exception
        self.cancel()
        if not self._leaving and self._owner.pending is None:
            self._owner.interrupt(self._interruption)

    async def __aenter__(self) -> "TaskGroup":
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._leaving = True
        if self._owner.pending is self._interruption:
            self._owner.pending = None
        if error is not None:
            self.cancel()
        await until_ended(self._tasks, cancel=True)
        if self._failure is not None and (error is None or error is self._interruption):
            raise self._failure
