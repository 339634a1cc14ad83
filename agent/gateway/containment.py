"""What the gateway gives up: it parses HTTP/2 with a large library in C++, and needs nothing but two sockets and its own files."""

import os

from agent.linux import capability
from agent.linux import process as p

OOM_SCORE = 500
"""Of 1000 (proc_pid_oom_score_adj(5)): before a container's process or the agent, the kernel ends this one."""
SOCKET_MASK = 0o177


def contain() -> None:
    """No network but none's own, no capability, nothing to gain by executing; first to go when memory is short. Raises OSError.

    What is created from here on is root's alone.
    """
    os.umask(SOCKET_MASK)
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(OOM_SCORE))
    p.unshare(p.CLONE_NEWNET | p.CLONE_NEWIPC)
    p.set_no_new_privs()
    p.clear_ambient()
    for number in range(capability.last_capability() + 1):
        p.drop_bounding(number)
    capability.Sets(0, 0, 0).install()
