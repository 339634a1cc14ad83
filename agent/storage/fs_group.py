"""Changing the group of a volume's files (`fs_group` of a storage, Kubernetes' fsGroup)."""

import os
import stat
from typing import TYPE_CHECKING

from agent.linux.fd import OwnedFd
from agent.linux.openat2 import open_without_links
from agent.storage import options as mount_options
from agent.worker import run_in_worker

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import Storage

ON_ROOT_MISMATCH = 1
READ_WRITE, READ_ONLY = 0o660, 0o440
ENTER, SETGID = 0o110, 0o2000


async def apply(storage: "Storage") -> None:
    """Give the mount point and all below it to `fs_group.group_id`, if the request has one.

    Files also get read and write permission for owner and group (read only for a read-only
    volume), and directories search permission and the setgid bit. Symbolic links only get the
    group. With the policy OnRootMismatch nothing is changed if the root is already as wanted.
    Raises StepFailed.
    """
    if not storage.HasField("fs_group"):
        return
    bits = READ_ONLY if mount_options.parse(storage.options).read_only else READ_WRITE
    group, policy = storage.fs_group.group_id, storage.fs_group.group_change_policy
    await run_in_worker(
        lambda: _change_groups(storage.mount_point, group, bits, policy == ON_ROOT_MISMATCH), f"group of {storage.mount_point}"
    )


def _change_groups(mount_point: str, group: int, bits: int, only_on_mismatch: bool) -> None:
    with OwnedFd(open_without_links(mount_point, os.O_RDONLY | os.O_DIRECTORY)) as root:
        status = os.fstat(root)
        wanted = bits | ENTER | SETGID
        if only_on_mismatch and status.st_gid == group and status.st_mode & wanted == wanted:
            return
        for _, directories, files, directory in os.fwalk(".", topdown=False, follow_symlinks=False, dir_fd=root):
            for name in (*directories, *files):
                _change_group(name, directory, group, bits)
        _change_group(".", root, group, bits)


def _change_group(name: str, directory: int, group: int, bits: int) -> None:
    """Change the group and mode of one file or directory.

    The file is opened without following links and then changed through /proc/self/fd. A symbolic
    link that replaces it between the check and the change is not followed.
    """
    with OwnedFd(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)) as fd:
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            os.chown(name, -1, group, dir_fd=directory, follow_symlinks=False)
            return
        extra = ENTER | SETGID if stat.S_ISDIR(mode) else 0
        os.chown(f"/proc/self/fd/{fd}", -1, group)
        os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(mode) | bits | extra)
