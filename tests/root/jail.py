"""Run the agent as root where it can do no harm to the machine: `python jail.py FOLDER ARGUMENT...` executes the arguments.

All of the file system is read-only but FOLDER and the control groups; the clock and the machine's power are out of reach.
"""

import os
import sys

from agent.linux import mount as m
from agent.linux.libc import AT_FDCWD, AT_RECURSIVE
from agent.linux.process import CLONE_NEWNS, drop_bounding, unshare

CAP_SYS_BOOT, CAP_SYS_TIME, CAP_SYS_MODULE, CAP_SYS_RAWIO = 22, 25, 16, 17


def main(folder: str, command: list[str]) -> None:
    unshare(CLONE_NEWNS)
    m.mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, propagation=m.MS_PRIVATE)
    own = m.open_tree(AT_FDCWD, folder, m.OPEN_TREE_CLONE)
    m.mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, set_=m.MOUNT_ATTR_RDONLY)
    m.move_mount_path(own, folder)
    with open("/proc/self/mounts", encoding="utf-8") as file:
        groups = [line.split(" ")[1] for line in file if line.split(" ")[2] == "cgroup2"]
    for place in groups:
        m.mount_setattr(AT_FDCWD, place, 0, clear=m.MOUNT_ATTR_RDONLY)
    for capability in (CAP_SYS_BOOT, CAP_SYS_TIME, CAP_SYS_MODULE, CAP_SYS_RAWIO):
        drop_bounding(capability)
    os.execv(command[0], command)  # what is not in the bounding set is gone with it, for root as well (capabilities(7))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
