"""User namespaces that only carry id mappings, for mounts with translated owners (mount_setattr(2), MOUNT_ATTR_IDMAP)."""

import os
import signal
from typing import Never

from agent.container.spec.mounts import mapping_lines
from agent.linux import process as p
from agent.linux import procfs
from agent.linux.reaper import reaper

Mappings = tuple[tuple[int, int, int], ...]


def mapped_namespace(uid_mappings: Mappings, gid_mappings: Mappings) -> int:
    """A descriptor of a new user namespace with these mappings. A child lives in it until the descriptor is there. Raises OSError."""
    with p.SignalsBlocked():
        pid, pidfd = p.clone3(p.CLONE_NEWUSER)
        if pid == 0:
            _stay()
    child = reaper.adopt(pid, pidfd)
    try:
        procfs.write(f"{pid}/gid_map", mapping_lines(gid_mappings))
        procfs.write(f"{pid}/uid_map", mapping_lines(uid_mappings))
        return procfs.open_link(f"{pid}/ns/user")
    finally:
        p.pidfd_send_signal(pidfd, signal.SIGKILL)
        # It sleeps, and has nothing that could hold it: this takes as long as giving its memory back.
        reaper.collect(child, block=True)
        os.close(pidfd)


def mappings_of(pid: int) -> tuple[Mappings, Mappings]:
    """(users, groups) of the user namespace that a process is in, as the agent sees them."""

    def read(name: str) -> Mappings:
        lines = [line.split() for line in procfs.read(f"{pid}/{name}").splitlines()]
        return tuple([(int(first), int(outer), int(size)) for first, outer, size in lines])

    return read("uid_map"), read("gid_map")


def _stay() -> Never:
    """The child: there until it is killed."""
    try:
        while True:
            signal.pause()
    finally:
        os._exit(0)
