"""Tasks: coroutines that run until they park. Also their waiters and the running loop."""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
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
    """Thrown into a task by `Task.cancel`. Clean up and let it pass.

    A task only ever gets its own: the cancellation of another task is a TaskCancelled.
    """


class TaskCancelled(Exception):
    """Raised by `Task.wait` when the awaited task was cancelled, as opposed to the waiting one."""


class _Park:
    """Hands control to the loop until the task is woken. There is one instance, to await."""

    def __await__(self) -> "Generator[None, None, None]":
        yield


PARK = _Park()


class Task(Generic[T]):
    """A running coroutine, made by `spawn`."""

    __slots__ = ("_coro", "cancelling", "done", "exception", "name", "on_end", "pending", "result", "scheduled", "shielded", "waiters")

    def __init__(self, coro: "Coroutine[Any, Any, T]", name: str) -> None:
        self._coro = coro
        self.pending: BaseException | None = None
        self.cancelling: Cancelled | None = None
        self.scheduled = False
        self.shielded = False
        """True for cleanup: at its end `run` waits for the task instead of cancelling it."""
        self.waiters = Waiters()
        self.on_end: Callable[[Task[T]], None] | None = None
        self.name = name
        self.done = False
        self.result: T | None = None
        self.exception: BaseException | None = None

    def cancel(self) -> None:
        """Throw `Cancelled` into the task where it is parked.

        Only the first call has an effect, so that further ones do not disturb the cleanup.
        """
        if self.cancelling is None and not self.done:
            self.cancelling = Cancelled()
            self.interrupt(self.cancelling)

    def interrupt(self, error: BaseException) -> None:
        """Throw `error` into the task where it is parked, when it next runs."""
        if not self.done:
            self.pending = error
            running_loop().wake(self)

    async def wait(self) -> "T":
        """Return the result of the task, or raise what it raised.

        Raises TaskCancelled if the task was cancelled. Cancelling the waiter does not cancel the
        task.
        """
        while not self.done:
            await self.waiters.wait()
        if isinstance(self.exception, Cancelled):
            raise TaskCancelled(f"task {self.name} was cancelled")
        if self.exception is not None:
            raise self.exception
        return self.result  # type: ignore[return-value]

    async def stop(self) -> None:
        """Cancel the task and wait until its cleanup is over, however it ends.

        An error of the task is not raised here: `wait` raises it.
        """
        self.cancel()
        await until_ended([self])

    def step(self) -> None:
        """Run until the task parks again or ends."""
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
        """Wake the task again if an interruption is pending.

        A task that interrupted itself parks like any other. The error is thrown in when it next
        runs.
        """
        if self.pending is not None:
            running_loop().wake(self)

    def _finish(self, result: "T | None", exception: BaseException | None) -> None:
        """Record the outcome, take the task out of the loop and wake its waiters."""
        self.done = True
        self.result = result
        self.exception = exception
        running_loop().tasks.discard(self)
        self.waiters.wake_all()
        if self.on_end is not None:
            self.on_end(self)


class Waiters:
    """Tasks that are parked for one condition, woken in the order of arrival.

    `held` means that something outside the loop waits as well, so that an error is not logged as
    one that nothing handles.
    """

    __slots__ = ("_tasks", "held")

    def __init__(self) -> None:
        self._tasks: list[Task[Any]] = []
        self.held = False

    def __bool__(self) -> bool:
        return self.held or bool(self._tasks)

    async def wait(self) -> None:
        """Park until the condition wakes this task.

        If the task is interrupted after it was woken, it wakes the next one in its place:
        otherwise a wake-up would be lost.
        """
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
        """Wake the task that has waited longest, if there is one."""
        if self._tasks:
            running_loop().wake(self._tasks.pop(0))

    def wake_all(self) -> None:
        """Wake all tasks, in the order of arrival."""
        while self._tasks:
            self.wake_one()


async def until_ended(tasks: "list[Task[Any]]", cancel: bool = False) -> None:
    """Wait until all tasks have ended, however they end.

    This includes tasks that are added to the list meanwhile.

    An interruption of the caller does not end the wait. It cancels the tasks if `cancel` is set,
    and is raised at the end.
    """
    caller = running_loop().running()
    interruption: Cancelled | None = None
    later: Cancelled | None = None
    for task in tasks:
        while not task.done:
            try:
                await task.waiters.wait()
            except Cancelled as error:
                if interruption is None or error is caller.cancelling:
                    interruption = error
                else:
                    later = error  # a second time limit: thrown when the first one is through
                if cancel:
                    for other in tasks:
                        other.cancel()
    if interruption is not None:
        if interruption is not caller.cancelling:
            caller.pending = caller.pending or later
        raise interruption


_the_loop: "Loop | None" = None


def running_loop() -> "Loop":
    """Return the loop of this process. Raises RuntimeError outside of `run`."""
    if _the_loop is None:
        raise RuntimeError("no loop is running")
    return _the_loop


def set_loop(loop: "Loop | None") -> None:
    """Set the loop of this process, or None. Only `run` calls this.

    Raises RuntimeError if a loop is running already.
    """
    global _the_loop
    if loop is not None and _the_loop is not None:
        raise RuntimeError("a loop is running already")
    _the_loop = loop


def spawn(coro: "Coroutine[Any, Any, T]", *, name: str) -> "Task[T]":
    """Start a task and return it.

    If the task fails while nothing waits for it, its traceback is printed on standard error and
    the loop goes on.
    """
    return running_loop().spawn(coro, name)


def forget(fd: int) -> None:
    """Make the loop forget a descriptor that is about to be closed.

    Wakes the tasks that wait for it with DescriptorClosed. Does nothing if no loop runs.
    """
    if _the_loop is not None:
        _the_loop.descriptors.forget(fd)


def look_again(fd: int) -> None:
    """Wake the tasks that wait to read from a descriptor, as if there were data."""
    if _the_loop is not None:
        _the_loop.descriptors.look_again(fd)


def current_task() -> "Task[Any]":
    """Return the task that is running. Raises RuntimeError outside of a task."""
    return running_loop().running()
