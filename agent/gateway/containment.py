"""Gives up the privileges that the gateway does not need.

The gateway parses HTTP/2 with a large C++ library, and it runs as root in the guest. It needs
nothing but two unix sockets and its own files, so a bug in the parser should gain nothing more.
"""

import os

from agent.linux import capability
from agent.linux import process as p

OOM_SCORE = 500
"""Adjustment of the OOM score, of 1000 at most (proc_pid_oom_score_adj(5)).

When memory runs out, the kernel kills the gateway before a process of a container or the agent.
"""
SOCKET_MASK = 0o177
"""The umask: sockets and files that the gateway makes are for root only."""


def contain() -> None:
    """Give up network, capabilities and what exec could gain. Raises OSError.

    New network and ipc namespaces leave the process without a usable network interface. Without
    capabilities and with no_new_privs, root is an ordinary user that owns root's files, and no
    program that it executes gains anything. What it creates from here on is accessible to root
    only. The kernel kills it first when memory runs out.
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
