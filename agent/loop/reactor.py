"""The event loop: runs ready tasks, and wakes them by descriptors, timers and signals.

One round of the loop runs every task that is ready, once, and then calls epoll_wait(2) with the
time until the next timer. Each woken task runs in the next round. Registrations are
level-triggered and follow the waiters: apart from the pipe of the signals, a descriptor is in
epoll only while a task waits for it, so data that no task wants does not make the loop spin.
"""

import os
import sys
import time
from _heapq import heapify, heappop, heappush

from agent.loop.descriptors import READ, WatchedDescriptors
from agent.loop.task import Task, running_loop, set_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Coroutine
    from typing import Any, Final, TypeVar

    T = TypeVar("T")
else:
    import _signal as signal

LONGEST_WAIT: "Final" = 3600.0
"""Seconds that one epoll_wait(2) may last.

epoll takes at most 24 days, and the deadline of a client may be 292 years away.
"""
FEW_TIMERS: "Final" = 64
"""Number of cancelled timers that are left in the heap in any case."""
ENDING_SECONDS: "Final" = 10.0
"""Seconds that `run` waits at its end for the tasks that it has cancelled."""


class Timer:
    """An entry of the loop's heap. `callback` is None if it was cancelled or has run."""

    __slots__ = ("callback", "order", "when")

    def __init__(self, when: float, order: int, callback: "Callable[[], None]") -> None:
        self.when = when
        self.order = order
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: "Timer") -> bool:
        return (self.when, self.order) < (other.when, other.order)


class Loop:
    """The state of one call of `run`."""

    def __init__(self) -> None:
        self.descriptors = WatchedDescriptors(self)
        self.ready: list[Task[Any]] = []
        self.tasks: set[Task[Any]] = set()
        self.current: Task[Any] | None = None
        self._timers: list[Timer] = []
        self._cancelled = 0
        self._order = 0
        self._signal_fd = self._signal_write_end = -1
        """The two ends of the pipe by which signals arrive."""
        self._signal_hooks: dict[int, Callable[[], None]] = {}

    # tasks

    def spawn(self, coro: "Coroutine[Any, Any, T]", name: str) -> "Task[T]":
        """Start a task: it runs for the first time in the next round."""
        task = Task(coro, name)
        self.tasks.add(task)
        self.wake(task)
        return task

    def wake(self, task: "Task[Any]") -> None:
        """Make a task run in the next round. Does nothing if it is scheduled already."""
        if not task.scheduled:
            task.scheduled = True
            self.ready.append(task)

    def run(self, main: "Coroutine[Any, Any, T]") -> "T":
        """Run `main` and then the cleanup of all other tasks. Return or raise its outcome."""
        task = self.spawn(main, "main")
        task.waiters.held = True
        while True:
            self._run_ready()
            if task.done:
                break
            self._collect()
        self._end_tasks()
        if task.exception is not None:
            raise task.exception
        return task.result  # type: ignore[return-value]

    def _end_tasks(self) -> None:
        """Cancel the remaining tasks and wait until their cleanup is over.

        Shielded tasks, which are cleanup themselves, are not cancelled. The wait includes tasks
        that are started by this cleanup. After ENDING_SECONDS the tasks that have not ended are
        reported on standard error and left alone.
        """
        for task in list(self.tasks):
            if not task.shielded:
                task.cancel()
        self._run_ready()
        if not self.tasks:
            return
        end = time.monotonic() + ENDING_SECONDS
        self.call_at(end, _nothing)
        while self.tasks and time.monotonic() < end:
            self._collect()
            self._run_ready()
        for task in self.tasks:
            print(f"agent: task {task.name} did not end within {ENDING_SECONDS} s of being cancelled", file=sys.stderr, flush=True)

    def _run_ready(self) -> None:
        """Run every task that is ready now, once."""
        batch, self.ready = self.ready, []
        for task in batch:
            self.current = task
            task.step()
        self.current = None

    def _collect(self) -> None:
        """Wait for descriptors and timers, and make the tasks that wait for them ready."""
        wait = 0.0 if self.ready else self._until_next_timer()
        descriptors, signal_fd = self.descriptors, self._signal_fd
        for fd, events in descriptors.epoll.poll(wait):
            if fd == signal_fd:
                self._signals_arrived()
            else:
                descriptors.ready(fd, events)
        self._run_timers()

    def close(self) -> None:
        """Restore the default signal handlers and close the descriptors of the loop."""
        if self._signal_fd >= 0:
            signal.set_wakeup_fd(-1)
            for signum in self._signal_hooks:
                signal.signal(signum, signal.SIG_DFL)
            os.close(self._signal_fd)
            os.close(self._signal_write_end)
        self.descriptors.epoll.close()

    # timers

    def call_at(self, when: float, callback: "Callable[[], None]") -> Timer:
        """Call `callback` in the loop at `when` (seconds of time.monotonic())."""
        self._order += 1
        timer = Timer(when, self._order, callback)
        heappush(self._timers, timer)
        return timer

    def cancel_timer(self, timer: Timer) -> None:
        """Cancel a timer. Does nothing if it has run.

        A cancelled timer stays in the heap until it is the first entry. Calls usually end long
        before their deadlines, so the heap is rebuilt once most of its entries are cancelled.
        """
        if timer.callback is None:
            return
        timer.callback = None
        self._cancelled += 1
        if self._cancelled > FEW_TIMERS and self._cancelled > len(self._timers) // 2:
            self._timers = [other for other in self._timers if other.callback is not None]
            heapify(self._timers)
            self._cancelled = 0

    def _until_next_timer(self) -> float | None:
        """Return the seconds to the next timer, at most LONGEST_WAIT, or None without timers."""
        self._drop_cancelled()
        if not self._timers:
            return None
        return min(max(0.0, self._timers[0].when - time.monotonic()), LONGEST_WAIT)

    def _drop_cancelled(self) -> None:
        """Remove cancelled timers from the head of the heap."""
        while self._timers and self._timers[0].callback is None:
            heappop(self._timers)
            self._cancelled -= 1

    def _run_timers(self) -> None:
        """Run the callbacks of all timers that are due.

        The callback is removed first, so that a callback which cancels its own timer does not
        count it as cancelled.
        """
        self._drop_cancelled()
        now = time.monotonic() if self._timers else 0.0
        while self._timers and self._timers[0].when <= now:
            timer = heappop(self._timers)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
            self._drop_cancelled()

    # signals

    def on_signal(self, signum: int, hook: "Callable[[], None]") -> None:
        """Call `hook` in the loop after a signal. Several arrivals may lead to one call.

        The interpreter's C handler writes the signal's number to a pipe that epoll watches
        (signal.set_wakeup_fd), so a signal that arrives before epoll_wait(2) begins is not missed.
        """
        if self._signal_fd < 0:
            self._signal_fd, self._signal_write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            signal.set_wakeup_fd(self._signal_write_end, warn_on_full_buffer=False)
            self.descriptors.epoll.register(self._signal_fd, READ)
        self._signal_hooks[signum] = hook
        signal.signal(signum, _no_work)

    def _signals_arrived(self) -> None:
        """Call the hook of each signal in the pipe, once per signal number."""
        try:
            arrived = set(os.read(self._signal_fd, 512))
        except BlockingIOError:
            return
        for signum in arrived:
            hook = self._signal_hooks.get(signum)
            if hook is not None:
                hook()

    def running(self) -> "Task[Any]":
        """Return the task that is running. Raises RuntimeError outside of a task."""
        if self.current is None:
            raise RuntimeError("not inside a task")
        return self.current


def _no_work(signum: int, frame: object) -> None:
    """Do nothing: the Python-level handler of a signal.

    All work is done in the loop, so a forked child, which does not run the loop, does none.
    """


def _nothing() -> None:
    """Do nothing: the callback of a timer that only ends a wait."""


def run(main: "Coroutine[Any, Any, T]") -> "T":
    """Run `main` to its end and return its result.

    Tasks that it leaves behind are cancelled, and their cleanup is waited for. Raises what `main`
    raises, and RuntimeError if a loop is running already.
    """
    loop = Loop()
    try:
        set_loop(loop)
    except RuntimeError:
        main.close()
        loop.close()
        raise
    try:
        return loop.run(main)
    finally:
        set_loop(None)
        loop.close()


def on_signal(signum: int, hook: "Callable[[], None]") -> None:
    """Call `hook` from the loop after a signal. For SIGCHLD the hook reaps orphans."""
    running_loop().on_signal(signum, hook)
