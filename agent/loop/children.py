"""A child process from its pidfd to its end.

`collect` and `kill` have to reach their end, or the child stays in the reaper's table and its pidfd
open. So their callers run them by `shield`.
"""

import os
import signal

from agent.linux import process
from agent.linux.reaper import Child, reaper
from agent.loop.descriptors import Fd
from agent.loop.task import spawn
from agent.loop.waits import exited, timeout

KILLED_SECONDS = 2.0
"""Seconds that `kill` waits for the end of a child.

The kernel may hold a process that waits for a device or a share, even after SIGKILL.
"""


def open_child(pid: int) -> Fd:
    """Return the pidfd of a child that has just been started.

    If that fails, the child is killed and reaped, since nothing could wait for its end. Raises
    OSError.
    """
    try:
        return Fd(os.pidfd_open(pid))
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


async def collect(child: Child, pidfd: Fd) -> int | None:
    """Wait for the end of a child, close its pidfd, and return its status."""
    with pidfd:
        await exited(pidfd)
        return reaper.collect(child)


async def kill(child: Child, pidfd: Fd, name: str) -> None:
    """Kill a child that nothing waits for any more, and wait up to KILLED_SECONDS for its end.

    A task goes on to wait after that, so it is reaped whenever the kernel releases it.
    """
    process.kill(pidfd.fileno())
    collecting = spawn(collect(child, pidfd), name=f"{name} killed")
    collecting.shielded = True
    try:
        with timeout(KILLED_SECONDS):
            await collecting.wait()
    except TimeoutError:
        pass
