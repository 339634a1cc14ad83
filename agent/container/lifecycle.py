"""A container's statuses, and the operations that each one permits."""

from collections.abc import Mapping
from enum import Enum


class Status(Enum):
    """The status of a container. The values are the specification's, and "paused"."""

    CREATING = "creating"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


ALIVE = frozenset((Status.CREATED, Status.RUNNING, Status.PAUSED))

# `delete` is the specification's: for a stopped container. `remove` stops it first.
LEGAL: Mapping[str, frozenset[Status]] = {
    "start": frozenset((Status.CREATED,)),
    "exec": frozenset((Status.CREATED, Status.RUNNING)),
    "signal": ALIVE,
    "pause": frozenset((Status.RUNNING,)),
    "resume": frozenset((Status.PAUSED,)),
    "update": ALIVE,
    "delete": frozenset((Status.STOPPED,)),
    "remove": ALIVE | {Status.STOPPED},
}
