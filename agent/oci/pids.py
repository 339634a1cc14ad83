"""Processes by a number and the time they were started: together these are never another's."""

import os
import select
from pathlib import Path


def start_time(pid: int) -> int:
    """When a process was started, in clock ticks since boot (proc_pid_stat(5)); 0 when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # the name in parentheses may hold anything, parentheses and spaces too
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def open_process(pid: int, started: int) -> int:
    """A pidfd of the process; -1 when it has ended, also if its number is another's by now."""
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
