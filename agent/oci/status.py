"""The status of a container, determined from the kernel.

It is not stored, so a crash cannot make it wrong.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.container.lifecycle import Status
from agent.errors import NotFound
from agent.oci.pids import open_process
from agent.oci.state_dir import Record, StateDir


@dataclass(frozen=True, slots=True)
class ObservedState:
    """A container's record and its present status."""

    record: Record
    status: Status

    @property
    def pid(self) -> int:
        """The first process's pid, 0 if it has ended."""
        return 0 if self.status is Status.STOPPED else self.record.pid

    def document(self) -> dict[str, Any]:
        """Return the specification's state document, with the fields that runc adds."""
        record = self.record
        return {
            "ociVersion": record.version,
            "id": record.id,
            "pid": self.pid,
            "status": self.status.value,
            "bundle": record.bundle,
            "rootfs": record.rootfs,
            "created": record.created,
            "annotations": record.annotations,
            "owner": record.owner,
        }


def observe(state_dir: StateDir) -> ObservedState:
    """Return the record and the status of a container. Raises NotFound."""
    try:
        record = state_dir.load()
    except NotFound:
        if not state_dir.is_locked():
            raise
        # Its creator has made the directory, and nothing else yet.
        return ObservedState(Record(state_dir.id, "", "", "", "", "", {}, ""), Status.CREATING)
    return ObservedState(record, _status(state_dir, record))


def _status(state_dir: StateDir, record: Record) -> Status:
    if not record.pid:
        return Status.CREATING if state_dir.is_locked() else Status.STOPPED
    pidfd = open_init(record)
    if pidfd < 0:
        return Status.STOPPED
    os.close(pidfd)
    connection = state_dir.connect()
    if connection is not None:
        connection.close()
        return Status.CREATED
    try:
        frozen = Path(record.cgroup, "cgroup.freeze").read_text(encoding="ascii").strip() == "1"
    except OSError:
        frozen = False
    return Status.PAUSED if frozen else Status.RUNNING


def open_init(record: Record) -> int:
    """Return a pidfd of the first process, or -1 if it has ended (see `open_process`)."""
    return open_process(record.pid, record.start_time)
