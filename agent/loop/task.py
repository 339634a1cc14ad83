"""Tasks: coroutines that run until they park, who waits for them, and which loop is theirs."""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from typing import Any, Generic, TypeVar

    from agent.loop.reactor import Loop

    T = TypeVar("T")
else:

    class Generic:
        """Stands in for typing.Generic, which start-up does not import."""

        def __class_getitem__(cls, item):
            return cls

    T = None


class Cancelled(BaseException):
    """Thrown into a task by `Task.cancel`. Clean up and let it pass."""


class _Park:
    """Awaiting the only instance hands control to the loop until the task is woken."""

    def __await__(self) -> "Generator[None, None, None]":
        yield


PARK = _Park()


class Task(Generic[T]):
    """A running coroutine. Made by `spawn`."""

    __slots__ = ("_coro", "done", "exception", "name", "pending", "result", "scheduled", "waiters")

    def __init__(self, coro: "Coroutine[Any, Any, T]", name: str) -> None:
        self._coro = coro
        self.pending: BaseException | None = None
        self.scheduled = False
        self.waiters = Waiters()
        self.name = name
        self.done = False
        self.result: T | None = None
        self.exception: BaseException | None = None

    def cancel(self) -> None:
        """Throw `Cancelled` into the task at the place where it is parked. Does nothing to a finished task."""
        self.interrupt(Cancelled())

    def interrupt(self, error: BaseException) -> None:
        if not self.done:
            self.pending = error
            running_loop().wake(self)

    async def wait(self) -> "T":
        """The task's result; raises what it raised. Cancelling the waiter does not cancel the task."""
        while not self.done:
            await self.waiters.wait()
        if self.exception is not None:
            raise self.exception
        return self.result  # type: ignore[return-value]

    def step(self) -> None:
        """Run until the next park, or to the end."""
        self.scheduled = False
        if self.done:
            return
        error, self.pending = self.pending, None
        try:
            if error is None:
                self._coro.send(None)
            else:
                self._coro.throw(error)
        except StopIteration as stop:
            self._finish(stop.value, None)
        except Cancelled as cancelled:
            self._finish(None, cancelled)
        except Exception as failure:  # noqa: BLE001 - the edge of a task: its waiters get the error, or the log does
            if not self.waiters:
                print(f"agent: task {self.name} failed:", file=sys.stderr, flush=True)
                sys.excepthook(type(failure), failure, failure.__traceback__)
            self._finish(None, failure)
        else:
            self._cancelled_itself()

    def _cancelled_itself(self) -> None:
        """A task that interrupted itself parks like any other and is woken at once."""
        if self.pending is not None:
            running_loop().wake(self)

    def _finish(self, result: "T | None", exception: BaseException | None) -> None:
        self.done = True
        self.result = result
        self.exception = exception
        running_loop().tasks.discard(self)
        self.waiters.wake_all()


class Waiters:
    """Tasks parked for one condition, woken in order of arrival. `held`: somebody outside the loop waits as well."""

    __slots__ = ("_tasks", "held")

    def __init__(self) -> None:
        self._tasks: list[Task[Any]] = []
        self.held = False

    def __bool__(self) -> bool:
        return self.held or bool(self._tasks)

    async def wait(self) -> None:
        task = running_loop().running()
        self._tasks.append(task)
        try:
            await PARK
        except BaseException:
            if task in self._tasks:
                self._tasks.remove(task)
            else:
                self.wake_one()  # it was this task's turn: pass it on
            raise
        if task in self._tasks:
            self._tasks.remove(task)

    def wake_one(self) -> None:
        if self._tasks:
            running_loop().wake(self._tasks.pop(0))

    def wake_all(self) -> None:
        while self._tasks:
            self.wake_one()


_the_loop: "Loop | None" = None


def running_loop() -> "Loop":
    """The loop of this process. Raises RuntimeError outside of `run`."""
    if _the_loop is None:
        raise RuntimeError("no loop is running")
    return _the_loop


def set_loop(loop: "Loop | None") -> None:
    """`run` only. Raises RuntimeError where one is running already."""
    global _the_loop
    if loop is not None and _the_loop is not None:
        raise RuntimeError("a loop is running already")
    _the_loop = loop


def spawn(coro: "Coroutine[Any, Any, T]", *, name: str) -> "Task[T]":
    """Start a task. If it fails while nobody waits for it, the traceback goes to standard error and the loop goes on."""
    return running_loop().spawn(coro, name)


def current_task() -> "Task[Any]":
    """The task that is running."""
    return running_loop().running()
