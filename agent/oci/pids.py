"""Identifies a process by (pid, start time), which stays unique when the pid is reused."""

import os
import select
from pathlib import Path


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
