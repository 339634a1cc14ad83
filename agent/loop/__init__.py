"""Coroutines on epoll: one thread and a small set of primitives.

A task is an `async def` that runs until it parks. A parked task is woken by a descriptor, a timer,
a signal or another task. Ready tasks run in rounds, in the order in which they became ready, so
none starves another.

    async def main() -> None:
        task = spawn(copy(a, b), name="copy")
        with timeout(5):
            await task.wait()
    run(main())

## Descriptors: who may close what

epoll(7) does not watch a descriptor number. It watches the pair of a number and the open file
behind it (the "open file description"), from EPOLL_CTL_ADD until every descriptor of that open
file is closed. Three things follow, and each of them has caused a bug here:

1. When the last descriptor of an open file is closed, the kernel removes the pair and reports
   nothing. A task that waits for it is never woken. The loop's own table still has the number, so
   the EPOLL_CTL_MOD for the next owner of that number fails with ENOENT.
2. When the file is open elsewhere too (dup(2), or a forked child that has not called execve(2)
   yet), closing does not remove the pair. epoll then goes on reporting events of a file that is
   not ours any more, under a number that may belong to another file by now. EPOLL_CTL_DEL with
   that number cannot remove it.
3. Numbers are reused at once: open(2) returns the lowest free one. A cancelled task gives up its
   wait only when it next runs. If the number is closed before that, and opened again in the same
   round, the task would remove the registration of the new owner.

So the order is always: wake the waiters, make epoll forget the number, close it. `Fd` and `Socket`
do that in their `close`:

- A descriptor that a task may wait for belongs to exactly one `Fd` or `Socket`. The holder of that
  object closes it, no matter which task waits for it.
- A waiter is woken with DescriptorClosed (an OSError with EBADF). It has nothing to clean up and
  must not touch the number.
- A bare number may be waited for only by the task that opened it and that closes it after the
  wait, as in a single function. In every other case use an `Fd`.
- `detach` ends the ownership: the number belongs to the caller.
- A forked child has copies of all this but not the loop. It closes numbers and never runs a task.

## Cancellation

`Task.cancel` asks once. The task is done when its cleanup is. `Cancelled` is always a task's own:
a task that waits for another one which was cancelled gets TaskCancelled, an ordinary error. The
starter of a task that does not need it any more calls `await task.stop()`, or starts it in a
`TaskGroup`. Both wait for the cleanup, so that the caller does not go on while the cancelled task
is still at work. Cleanup that must not be interrupted is run by `shield`. When its main task is
done, `run` cancels the remaining tasks and waits for their cleanup too.

The modules below `socket`, `signal` and `selectors` (`_socket`, `_signal`, `select`) are used
directly. The public ones import `enum`, `re` and `collections`, and those imports would be most of
the start-up time in an emulated guest.
"""

from agent.loop.descriptors import DescriptorClosed, Fd, Socket, pipe, socket_pair
from agent.loop.reactor import on_signal, run
from agent.loop.task import Cancelled, Task, TaskCancelled, current_task, spawn
from agent.loop.waits import (
    Event,
    Lock,
    Queue,
    QueueClosed,
    TaskGroup,
    exited,
    gather,
    readable,
    shield,
    sleep,
    timeout,
    writable,
)

__all__ = [
    "Cancelled",
    "DescriptorClosed",
    "Event",
    "Fd",
    "Lock",
    "Queue",
    "QueueClosed",
    "Socket",
    "Task",
    "TaskCancelled",
    "TaskGroup",
    "current_task",
    "exited",
    "gather",
    "on_signal",
    "pipe",
    "readable",
    "run",
    "shield",
    "sleep",
    "socket_pair",
    "spawn",
    "timeout",
    "writable",
]
