"""The events of containers' lives, published in their order: created, started, exited, removed.

A program may end while its start still runs the poststart hooks, and a removal kills what runs. So
an exit is published after the start, and a removal waits until the exits are published.
"""

from typing import TYPE_CHECKING

from agent import event_log, log, loop

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from agent.container.process import ContainerProcess

MAX_EVENTS = 100
"""The number of out-of-memory events that are kept until a client fetches them."""


class ContainerEvents:
    """What becomes an event of `published`, and an out-of-memory kill one of `oom_events` too."""

    def __init__(self, published: event_log.Events, oom_events: "loop.Queue[str]") -> None:
        self._published = published
        self._oom_events = oom_events
        self._starting: dict[str, loop.Event] = {}
        """Containers whose start is not over. The event is set when it is."""
        self._exits: dict[str, list[loop.Task[None]]] = {}
        """Container id -> the tasks that will publish the exit of one of its processes."""

    async def start(self, container_id: str, work: "Awaitable[None]") -> None:
        """Await the start of a container, then publish it."""
        over = self._starting[container_id] = loop.Event()
        try:
            await work
            self._published.publish(event_log.STARTED, container_id)
        finally:
            self._starting.pop(container_id, None)  # a second start, which fails, has put its own there
            over.set()

    def follow(self, kind: int, container_id: str, exec_id: str, process: "ContainerProcess") -> None:
        """Publish an event for a new process, and one for its exit when that comes."""

        async def until_exit() -> None:
            status = await process.wait()
            if not exec_id and container_id in self._starting:
                await self._starting[container_id].wait()
            self._published.publish(event_log.EXITED, container_id, exec_id, status)

        self._published.publish(kind, container_id, exec_id)
        exits = self._exits.setdefault(container_id, [])
        exits.append(loop.spawn(until_exit(), name=f"exit of {container_id} {exec_id}"))
        exits[-1].on_end = exits.remove

    async def exits_published(self, container_id: str) -> None:
        """Wait until the exits of a container's processes, which have ended, are published."""
        for task in self._exits.pop(container_id, [])[:]:
            await task.wait()

    def removed(self, container_id: str) -> None:
        """Publish the removal of a container."""
        self._published.publish(event_log.REMOVED, container_id)

    def out_of_memory(self, container_id: str, kills: int) -> None:
        """Record one event per killed process. Events beyond MAX_EVENTS are dropped and logged."""
        reported = min(kills, MAX_EVENTS)
        dropped = kills - reported
        for _ in range(reported):
            self._published.publish(event_log.OOM, container_id)
            if len(self._oom_events) < MAX_EVENTS and not self._oom_events.closed:
                self._oom_events.put_nowait(container_id)
            else:
                dropped += 1
        if dropped:
            log.warn(f"out of memory: {dropped} events dropped, {MAX_EVENTS} are not fetched", "sandbox", container=container_id)
