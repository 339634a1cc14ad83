"""What a task can wait for: descriptors, time, and other tasks."""

import time

from agent.loop.reactor import READ, WRITE
from agent.loop.task import PARK, Cancelled, Task, Waiters, running_loop, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType
    from typing import Any, Generic, Literal, TypeVar

    from agent.loop.reactor import Timer

    T = TypeVar("T")
else:
    from agent.loop.task import Generic, T


async def readable(fd: int) -> None:
    """Park until `fd` can be read (or is at its end). Do not close a descriptor that a task waits for: cancel the task."""
    await running_loop().wait_fd(fd, READ)


async def writable(fd: int) -> None:
    """Park until `fd` can be written (or its other end is closed)."""
    await running_loop().wait_fd(fd, WRITE)


async def exited(pidfd: int) -> None:
    """Park until the process behind `pidfd` has ended. The caller then reaps it."""
    await running_loop().wait_fd(pidfd, READ)


async def sleep(seconds: float) -> None:
    """Park for a time; 0 lets every other ready task run first."""
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
    """`with timeout(seconds)`: the block ends with TimeoutError if it is still parked then. None: no limit. May be nested."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._error = Cancelled()
        self._loop = running_loop()
        self._timer: Timer | None = None

    def __enter__(self) -> "timeout":
        if self._seconds is not None:
            task = self._loop.running()
            self._timer = self._loop.call_at(time.monotonic() + self._seconds, lambda: self._expire(task))
        return self

    def _expire(self, task: "Task[Any]") -> None:
        """An interruption that is on its way already, as of a block within this one, comes first: ask again after it."""
        if task.pending is None:
            task.interrupt(self._error)
        else:
            self._timer = self._loop.call_at(time.monotonic(), lambda: self._expire(task))

    def __exit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, traceback: "TracebackType | None"
    ) -> "Literal[False]":
        if self._timer is not None:
            self._loop.cancel_timer(self._timer)
        if error is self._error:
            raise TimeoutError(f"not done within {self._seconds} s") from None
        return False


class QueueClosed(Exception):
    """`Queue.get` on a queue that is closed and empty, or `put_nowait` on a closed one."""


class Event:
    """A flag that tasks can wait for."""

    def __init__(self) -> None:
        self.is_set = False
        self._waiters = Waiters()

    def set(self) -> None:
        self.is_set = True
        self._waiters.wake_all()

    def clear(self) -> None:
        self.is_set = False

    async def wait(self) -> None:
        while not self.is_set:
            await self._waiters.wait()


class Lock:
    """Mutual exclusion between tasks, first come first served: `async with lock:`."""

    def __init__(self) -> None:
        self.owner: Task[Any] | None = None
        self._queue: list[Task[Any]] = []

    async def __aenter__(self) -> None:
        task = running_loop().running()
        if self.owner is None:
            self.owner = task
            return
        self._queue.append(task)
        try:
            while self.owner is not task:
                await PARK
        except BaseException:
            if self.owner is task:
                self._release()
            else:
                self._queue.remove(task)
            raise

    async def __aexit__(self, *error: object) -> None:
        self._release()

    def _release(self) -> None:
        self.owner = self._queue.pop(0) if self._queue else None
        if self.owner is not None:
            running_loop().wake(self.owner)


class Queue(Generic[T]):
    """An unbounded queue between tasks. What bounds it is its user's business (`len`)."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._waiters = Waiters()
        self.closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put_nowait(self, item: "T") -> None:
        if self.closed:
            raise QueueClosed
        self._items.append(item)
        self._waiters.wake_one()

    def close(self) -> None:
        """No more items; `get` hands out what is left, then raises QueueClosed."""
        self.closed = True
        self._waiters.wake_all()

    async def get(self) -> "T":
        while not self._items:
            if self.closed:
                raise QueueClosed
            await self._waiters.wait()
        return self._items.pop(0)


async def gather(*awaitables: "Awaitable[Any]") -> None:
    """Run several awaitables at once; waits for all, then raises the first error."""

    async def one(awaitable: "Awaitable[Any]") -> None:
        await awaitable

    tasks = [spawn(one(item), name="gather") for item in awaitables]
    failure: BaseException | None = None
    try:
        for task in tasks:
            try:
                await task.wait()
            except Exception as error:  # noqa: BLE001 - kept and raised below, after all have ended
                failure = failure or error
    finally:
        for task in tasks:
            task.cancel()
    if failure is not None:
        raise failure
