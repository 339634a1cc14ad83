"""A process of this host by its id: its memory, the priority of its session, its end."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

LOWEST, USUAL = 19, 0
"""Nice values."""
PRIORITY_SECONDS = 2.0
"""Seconds to try to change a priority: the kernel takes one change in a tenth of a second."""


def memory(pid: int) -> int:
    """Return the bytes of memory that a process takes, with its part of what is shared.

    That is Pss in smaps_rollup (proc(5)). Raises OSError if the process has ended, or has no memory
    any more because it is ending.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    if not (sizes := [int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")]):
        raise ProcessLookupError(f"process {pid} is ending")
    return sizes[0]


def set_priority(pid: int, value: int) -> None:
    """Set the priority of a process's session (sched(7), autogroup), where the kernel has that.

    Unlike a nice value of its own, it may be raised again by its user.
    """
    deadline = time.monotonic() + PRIORITY_SECONDS
    while True:
        try:
            Path(f"/proc/{pid}/autogroup").write_text(str(value))
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                return  # it stays slower than it could be
            time.sleep(0.05)
        except OSError:
            return  # this kernel has none, or the process has ended


def kill(pid: int, is_meant: Callable[[int], bool]) -> None:
    """Send SIGKILL to a process through a pidfd. Nothing happens if it has ended, or is this one.

    `is_meant` gets the pid once the pidfd is open: from then on it cannot mean another process. It
    may raise OSError for one that has ended.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if pid != os.getpid() and is_meant(pid):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        pass
    finally:
        os.close(descriptor)
