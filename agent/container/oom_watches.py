"""Those who wait for out-of-memory kills in a container."""

from collections.abc import Callable

from agent import loop
from agent.container.cgroup.manager import Cgroup

LAST_SECONDS = 1.0
"""Seconds to see the last kills before the cgroup is removed, and the counter with it."""


class OomWatches:
    """The watches of one container, which end with it."""

    def __init__(self, container_id: str) -> None:
        self._container_id = container_id
        self._watches: list[loop.Task[None]] = []

    async def watch(self, cgroup: Cgroup, killed: Callable[[int], None]) -> None:
        """Call `killed` with the number of new kills each time there are some.

        Returns when the cgroup has no process left, or at the `end`.
        """
        watch = loop.spawn(_follow(cgroup, killed), name=f"oom {self._container_id}")
        self._watches.append(watch)
        try:
            await watch.wait()
        except loop.TaskCancelled:
            return  # by `end`
        finally:
            self._watches.remove(watch)
            await watch.stop()

    async def end(self) -> None:
        """Let the watches see the last kills. They end on their own, because no process is left."""
        for watch in list(self._watches):
            try:
                with loop.timeout(LAST_SECONDS):
                    await watch.wait()
            except TimeoutError:
                watch.cancel()


async def _follow(cgroup: Cgroup, killed: Callable[[int], None]) -> None:
    seen = cgroup.earlier_oom_kills
    while (count := await cgroup.oom_kills_after(seen)) is not None:
        killed(count - seen)
        seen = count
