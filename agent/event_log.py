"""The event log of the sandbox: numbered container events, of which the last KEPT are stored.

The numbers let any number of clients follow the log, each at its own pace.
"""

import time
from typing import NamedTuple

from agent import loop
from agent.errors import Refused

UNKNOWN, CREATED, STARTED, EXITED, OOM, REMOVED, RESUMED = range(7)
"""Event kinds, with the numbers of innkeeper.v1.Event.Kind."""
KEPT = 1024
"""The number of events that are stored. An older one is dropped for each new one."""


class Event(NamedTuple):
    """A container event. `number` counts from 1, `time` is in seconds since the epoch.

    `exec_id` is empty for a container's first process. RESUMED is of the guest and has a
    `generation`.
    """

    number: int
    time: float
    kind: int
    container_id: str
    exec_id: str
    exit_status: int
    generation: int = 0


class Events:
    """The event log. `last` is the number of the latest event, 0 before the first."""

    def __init__(self) -> None:
        self.last = 0
        self._kept: list[Event] = []
        self._news = loop.Event()

    def publish(self, kind: int, container_id: str, exec_id: str = "", exit_status: int = 0, generation: int = 0) -> None:
        """Append an event and wake the tasks that wait in `after`."""
        self.last += 1
        self._kept.append(Event(self.last, time.time(), kind, container_id, exec_id, exit_status=exit_status, generation=generation))
        if len(self._kept) > KEPT:
            del self._kept[0]
        news, self._news = self._news, loop.Event()
        news.set()

    async def after(self, number: int) -> list[Event]:
        """Return the stored events with a higher number than `number`, waiting for one if needed.

        Raises Refused if `number` is higher than that of the latest event.
        """
        if number > self.last:
            raise Refused("after", f"{number} is beyond the latest event, {self.last}")
        while number == self.last:
            await self._news.wait()
        return self._kept[-min(self.last - number, KEPT) :]
