"""User namespaces that only carry id mappings, for mounts with translated owners.

See MOUNT_ATTR_IDMAP in mount_setattr(2).
"""

import os
import signal
from typing import Never

from agent.container.spec.mounts import mapping_lines
from agent.linux import process as p
from agent.linux import procfs
from agent.linux.reaper import reaper

Mappings = tuple[tuple[int, int, int], ...]


def mapped_namespace(uid_mappings: Mappings, gid_mappings: Mappings) -> int:
    """Return a descriptor of a new user namespace with these mappings. Raises OSError.

    A child keeps the namespace alive until the descriptor is open.
    """
    with p.SignalsBlocked():
        pid, pidfd = p.clone3(p.CLONE_NEWUSER)
        if pid == 0:
            _pause_forever()
    child = reaper.adopt(pid, pidfd)
    try:
        procfs.write(f"{pid}/gid_map", mapping_lines(gid_mappings))
        procfs.write(f"{pid}/uid_map", mapping_lines(uid_mappings))
        return procfs.open_link(f"{pid}/ns/user")
    finally:
        p.kill(pidfd)
        # The child sleeps, and holds nothing: reaping it takes only as long as freeing its memory.
        reaper.collect(child, block=True)
        os.close(pidfd)


def mappings_of(pid: int) -> tuple[Mappings, Mappings]:
    """Return the (uid, gid) mappings of a process's user namespace, as the agent sees them."""

    def read(name: str) -> Mappings:
        lines = [line.split() for line in procfs.read(f"{pid}/{name}").splitlines()]
        return tuple([(int(first), int(outer), int(size)) for first, outer, size in lines])

    return read("uid_map"), read("gid_map")


def _pause_forever() -> Never:
    """Wait in the child until it is killed."""
    try:
        while True:
            signal.pause()
    finally:
        os._exit(0)
