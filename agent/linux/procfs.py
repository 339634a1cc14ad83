"""The agent's own procfs, a mount that no container can reach by a path.

Every write to /proc on a container's behalf goes through it. A container may mount something over
its /proc, or swap it for another file below a shared directory, and would so redirect a write that
goes by path (CVE-2025-52881).
"""

import os

from agent.linux.fd import OwnedFd
from agent.linux.mount import PROC_SUPER_MAGIC, filesystem_magic, new_mount
from agent.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV, openat2

_handle = -1


def handle() -> int:
    """Return a descriptor of a detached procfs of the agent's pid namespace. It is made once."""
    global _handle
    if _handle < 0:
        _handle = new_mount(b"proc", ())
    return _handle


def write(path: str, value: bytes) -> None:
    """Write `value` in one write(2) to `path` below /proc (`self/oom_score_adj`, `sys/net/...`)."""
    with OwnedFd(openat2(handle(), path, os.O_WRONLY, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS)) as fd:
        if filesystem_magic(fd) != PROC_SUPER_MAGIC:
            raise OSError(f"{path} is not on procfs")
        os.write(fd, value)


def open_link(path: str) -> int:
    """Open the target of a magic link below /proc (`PID/ns/user`). The caller closes it."""
    return openat2(handle(), path, os.O_RDONLY, 0)


def read(path: str) -> bytes:
    """Return the content of a file below /proc."""
    with OwnedFd(openat2(handle(), path, os.O_RDONLY, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS)) as fd:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
