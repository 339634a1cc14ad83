"""Coroutines on epoll: one thread, a handful of primitives.

A task is an `async def` that runs until it parks; parked tasks are woken by a descriptor, a timer, a signal or another
task. Ready tasks run in rounds, in the order in which they became ready, so none starves another.

    async def main() -> None:
        task = spawn(copy(a, b), name="copy")
        with timeout(5):
            await task.wait()
    run(main())

## Descriptors: who may close what

epoll(7) does not watch a number. It watches the pair of a number and the open file behind it ("open file description"), from the moment
of EPOLL_CTL_ADD until that file is closed everywhere. Three things follow, and each has been a fault here:

1. When the last descriptor of a file is closed, the kernel takes the pair out without a word. A task that waits for it is never woken.
   The loop's own table still has the number; the next EPOLL_CTL_MOD for whoever gets that number then fails with ENOENT.
2. When the file is open elsewhere too (dup(2), or a child that was forked and has not executed its program yet), closing does not take
   the pair out: epoll goes on reporting events of a file that is not ours any more, under a number that may be another's, and
   EPOLL_CTL_DEL by that number cannot reach it.
3. Numbers come back at once: open(2) gives the lowest that is free. A task that was cancelled gives its wait up when it next runs; if
   the number is closed before that, and opened again in the same round, it takes the new owner's registration away.

So the order is always: wake the waiters, make epoll forget the number, close it. `Fd` and `Socket` do that in their `close`:

- A descriptor that a task may wait for belongs to exactly one `Fd` or `Socket`; the one that holds this object closes it, whoever waits.
- A waiter is woken with DescriptorClosed (an OSError, EBADF): it has nothing to clean up and must not touch the number.
- A bare number may be waited for only by the task that opened it and closes it after the wait, as in one function. Others get an `Fd`.
- `detach` ends the ownership: the number is the new owner's.
- A forked child has copies of all this but not the loop: it closes numbers, and never runs a task.

## Cancellation

`Task.cancel` asks once; the task is over when its cleanup is. `Cancelled` is always one's own: a task that waits for another which was
cancelled gets TaskCancelled, an ordinary error. Whoever starts a task and is done with it says `await task.stop()`, or starts it in a
`TaskGroup`, so nobody goes on while what it has cancelled is still at work. Cleanup that must be finished is run by `shield`. At its end
`run` cancels what is left and waits for its cleanup too.

The modules below `socket`, `signal` and `selectors` are used directly: the public ones import `enum`, `re` and
`collections`, which is most of what a start in an emulated guest would otherwise wait for.
"""

from agent.loop.descriptors import Fd, Socket, pipe, socket_pair
from agent.loop.reactor import DescriptorClosed, on_signal, run
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
