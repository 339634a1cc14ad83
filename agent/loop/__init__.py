"""Coroutines on epoll: one thread, a handful of primitives.

A task is an `async def` that runs until it parks; parked tasks are woken by a descriptor, a timer, a signal or another
task. Ready tasks run in rounds, in the order in which they became ready, so none starves another.

    async def main() -> None:
        task = spawn(copy(a, b), name="copy")
        with timeout(5):
            await task.wait()
    run(main())

The modules below `socket`, `signal` and `selectors` are used directly: the public ones import `enum`, `re` and
`collections`, which is most of what a start in an emulated guest would otherwise wait for.
"""

from agent.loop.reactor import on_signal, run
from agent.loop.task import Cancelled, Task, current_task, spawn
from agent.loop.waits import Event, Lock, Queue, QueueClosed, exited, gather, readable, sleep, timeout, writable

__all__ = [
    "Cancelled",
    "Event",
    "Lock",
    "Queue",
    "QueueClosed",
    "Task",
    "current_task",
    "exited",
    "gather",
    "on_signal",
    "readable",
    "run",
    "sleep",
    "spawn",
    "timeout",
    "writable",
]
