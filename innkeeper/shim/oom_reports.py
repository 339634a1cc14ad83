"""Out-of-memory kills of a container, each published once, and before the exit that it causes.

The guest reports a kill and an exit by two calls, whose answers may come in either order. kubelet
takes the reason of an exit (OOMKilled) from what was published before it. So the kills that the
container's cgroup has counted are published with the exit, and the guest's reports of these are
not.
"""

import threading
from collections.abc import Callable


class OomReports:
    """The kills of one container. `publish` is called for each."""

    def __init__(self, publish: Callable[[], None]) -> None:
        self._publish = publish
        self._lock = threading.Lock()
        self._reported = self._published = 0

    def reported(self) -> None:
        """Take a report of the guest."""
        with self._lock:
            self._reported += 1
            self._publish_up_to(self._reported)

    def counted(self, kills: int) -> None:
        """Take the number of all kills until now."""
        with self._lock:
            self._publish_up_to(kills)

    def _publish_up_to(self, kills: int) -> None:
        while self._published < kills:
            self._published += 1
            self._publish()
