"""The loop: which tasks are ready, and what makes them so: descriptors, timers and signals."""

import os
import select
import sys
import time
from _heapq import heapify, heappop, heappush

from agent.loop.task import PARK, Task, running_loop, set_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Coroutine
    from typing import Any, Final, TypeVar

    T = TypeVar("T")
else:
    import _signal as signal

READ: "Final" = select.EPOLLIN | select.EPOLLPRI
WRITE: "Final" = select.EPOLLOUT
LONGEST_WAIT: "Final" = 3600.0
"""Seconds; epoll takes no more than 24 days, a client's deadline may be 292 years."""
FEW_TIMERS: "Final" = 64
ENDING_SECONDS: "Final" = 10.0
"""How long `run` waits at its end for tasks that it has cancelled."""
EBADF: "Final" = 9


class Timer:
    """An entry of the loop's heap. `callback` None: cancelled, or done."""

    __slots__ = ("callback", "order", "when")

    def __init__(self, when: float, order: int, callback: "Callable[[], None]") -> None:
        self.when = when
        self.order = order
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: "Timer") -> bool:
        return (self.when, self.order) < (other.when, other.order)


class DescriptorClosed(OSError):
    """Raised in a task that waits for a descriptor, or uses one, that its owner has closed."""

    def __init__(self, fd: int) -> None:
        super().__init__(EBADF, f"descriptor {fd} was closed by its owner")


class Watched:
    """Who waits for one descriptor. `closed`: it was closed meanwhile, and its number may be another's by now."""

    __slots__ = ("closed", "readers", "writers")

    def __init__(self) -> None:
        self.closed = False
        self.readers: list[Task[Any]] = []
        self.writers: list[Task[Any]] = []


class Loop:
    """The state of one `run`."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.ready: list[Task[Any]] = []
        self.tasks: set[Task[Any]] = set()
        self.current: Task[Any] | None = None
        self._pid = os.getpid()
        self._fds: dict[int, Watched] = {}
        self._timers: list[Timer] = []
        self._cancelled = 0
        self._order = 0
        self._signal_pipe: tuple[int, int] | None = None
        self._signal_hooks: dict[int, Callable[[], None]] = {}

    # tasks

    def spawn(self, coro: "Coroutine[Any, Any, T]", name: str) -> "Task[T]":
        task = Task(coro, name)
        self.tasks.add(task)
        self.wake(task)
        return task

    def wake(self, task: "Task[Any]") -> None:
        if not task.scheduled:
            task.scheduled = True
            self.ready.append(task)

    def run(self, main: "Coroutine[Any, Any, T]") -> "T":
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
        """Cancel every task that is left and wait until their cleanup is over, and that of those which they have started for it."""
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
        """Wait for descriptors and timers, and make their tasks ready."""
        wait = 0.0 if self.ready else self._until_next_timer()
        for fd, events in self.epoll.poll(wait):
            self._descriptor_ready(fd, events)
        self._run_timers()

    def close(self) -> None:
        if self._signal_pipe is not None:
            signal.set_wakeup_fd(-1)
            for signum in self._signal_hooks:
                signal.signal(signum, signal.SIG_DFL)
            for fd in self._signal_pipe:
                os.close(fd)
        self.epoll.close()

    # descriptors

    async def wait_fd(self, fd: int, events: int) -> None:
        """Park until the descriptor is ready. Raises DescriptorClosed when its owner closes it meanwhile."""
        task = self.running()
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
        """Tell epoll what is waited for. False: a regular file, which is always ready."""
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
        """Change or end what epoll watches. A descriptor that was closed without the loop is none any more, or another's (ENOENT)."""
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
        """Take a descriptor out of epoll before it is closed, and wake those who wait for it."""
        watched = self._fds.pop(fd, None)
        if watched is None or os.getpid() != self._pid:  # a forked child has the table too, but epoll is its parent's
            return
        try:
            self.epoll.unregister(fd)
        except OSError:
            pass  # it has been closed already, by somebody who did not ask the loop
        watched.closed = True
        self._wake_all(watched.readers)
        self._wake_all(watched.writers)

    def look_again(self, fd: int) -> None:
        """Wake whoever waits to read as if there were something: they try, and find what else has changed."""
        if fd in self._fds:
            self._descriptor_ready(fd, READ)

    def _descriptor_ready(self, fd: int, events: int) -> None:
        if self._signal_pipe is not None and fd == self._signal_pipe[0]:
            self._signals_arrived(fd)
            return
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
            self.wake(task)
        tasks.clear()

    # timers

    def call_at(self, when: float, callback: "Callable[[], None]") -> Timer:
        self._order += 1
        timer = Timer(when, self._order, callback)
        heappush(self._timers, timer)
        return timer

    def cancel_timer(self, timer: Timer) -> None:
        """Does nothing to one that has run. When most of the heap is cancelled it is cleared: calls end long before their deadlines."""
        if timer.callback is None:
            return
        timer.callback = None
        self._cancelled += 1
        if self._cancelled > FEW_TIMERS and self._cancelled > len(self._timers) // 2:
            self._timers = [other for other in self._timers if other.callback is not None]
            heapify(self._timers)
            self._cancelled = 0

    def _until_next_timer(self) -> float | None:
        self._drop_cancelled()
        if not self._timers:
            return None
        return min(max(0.0, self._timers[0].when - time.monotonic()), LONGEST_WAIT)

    def _drop_cancelled(self) -> None:
        while self._timers and self._timers[0].callback is None:
            heappop(self._timers)
            self._cancelled -= 1

    def _run_timers(self) -> None:
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
        """Call `hook` in the loop after each arrival of a signal (several arrivals may become one call)."""
        if self._signal_pipe is None:
            self._signal_pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            signal.set_wakeup_fd(self._signal_pipe[1], warn_on_full_buffer=False)
            self.epoll.register(self._signal_pipe[0], READ)
        self._signal_hooks[signum] = hook
        signal.signal(signum, _no_work)

    def _signals_arrived(self, fd: int) -> None:
        try:
            arrived = set(os.read(fd, 512))
        except BlockingIOError:
            return
        for signum in arrived:
            hook = self._signal_hooks.get(signum)
            if hook is not None:
                hook()

    def running(self) -> "Task[Any]":
        if self.current is None:
            raise RuntimeError("not inside a task")
        return self.current


def _no_work(signum: int, frame: object) -> None:
    """The Python side of a signal: all work is done in the loop, so a forked child does none."""


def _nothing() -> None:
    """A timer that only ends a wait."""


def run(main: "Coroutine[Any, Any, T]") -> "T":
    """Run `main` to its end and return its result; tasks that it leaves behind are cancelled, and their cleanup is waited for.

    Raises RuntimeError within another `run`.
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
    """Call `hook` from the loop after a signal; for SIGCHLD this is where orphans are reaped."""
    running_loop().on_signal(signum, hook)
