"""Where a container is in its life, and what is legal there: the one place that says so."""

from collections.abc import Mapping
from enum import Enum


class Status(Enum):
    """Where a container is in its life."""

    CREATING = "creating"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


ALIVE = frozenset((Status.CREATED, Status.RUNNING, Status.PAUSED))

# `delete` is the specification's, of a container that has ended; `remove` ends it first.
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
