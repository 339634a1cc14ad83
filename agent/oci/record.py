"""What is stored of a container, and how its first process is found again.

A process is identified by (pid, start time), which stays unique when the pid is reused.
"""

import os
import select
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.container.lifecycle import Status
from agent.container.spec.reader import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is stored of a container.

    `pid` is 0 until the first process exists. `start_time` distinguishes it from a later process
    with the same pid. `cgroup` is the path of its cgroup, `made` lists the directories that were
    made for that. Both are known before anything is made.
    """

    id: str
    version: str
    bundle: str
    rootfs: str
    created: str
    owner: str
    annotations: dict[str, str]
    cgroup: str
    made: tuple[str, ...] = ()
    pid: int = 0
    start_time: int = 0
    resources: Document = field(default_factory=dict)
    """Limits by `update`, which replace those of the specification."""

    def owns_cgroup(self) -> bool:
        """Return whether the processes in the cgroup are the container's.

        Before the container has a first process, a cgroup that already existed may have processes
        of others.
        """
        return bool(self.pid) or self.cgroup in self.made

    def open_init(self) -> int:
        """Return a pidfd of the first process, or -1 if it has ended (see `open_process`)."""
        return open_process(self.pid, self.start_time)


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


def start_time(pid: int) -> int:
    """Return the start time of a process in clock ticks since boot (proc_pid_stat(5)).

    Returns 0 if there is no such process.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The name in parentheses may contain anything, parentheses and spaces too.
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def open_process(pid: int, started: int) -> int:
    """Return a pidfd of the process, or -1 if it has ended.

    A process that reuses the pid counts as ended. The pidfd is opened before the start time is
    compared: it then refers to the process that was compared, or that process has ended.
    """
    if not pid:
        return -1
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if start_time(pid) == started and not poll.poll(0):
        return pidfd
    os.close(pidfd)
    return -1
