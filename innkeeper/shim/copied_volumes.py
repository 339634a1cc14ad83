"""Carry a container's mounts of the host into a VM without a shared folder.

That is a VM with `shared_fs = "none"`. What is only read is copied (see `copies`). What is written
would be lost with the copy, so it is refused, but for these: an emptyDir is the guest's own, the
files of a pod (its hosts, host name, resolver) belong to nobody else, and the message that a
container leaves for kubelet is written back when it ends.
"""

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innkeeper.errors import InnkeeperError
from innkeeper.shim import copies, file_tree, memory_volumes
from innkeeper.wire.pb import agent_pb2

POD_FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
TERMINATION_LOG = "/dev/termination-log"
_KUBELETS_LOG = re.compile(r"/pods/[^/]+/containers/[^/]+/[^/]+")
"""The suffix of the path of kubelet's file for the last message.

The container may have it anywhere.
"""
HINT = "mount it read-only, use an emptyDir or a block device, or a handler with a shared folder"


@dataclass(frozen=True)
class Carried:
    """A mount of which `source` is the path in the guest.

    It is there after `storages` are mounted or the host's file or folder `copy` is copied. `log`:
    it is the file for the container's last message.
    """

    source: str
    storages: tuple[agent_pb2.Storage, ...] = ()
    copy: Path | None = None
    log: bool = False


def carry(source: Path, destination: str, options: list[str]) -> Carried:
    """Return how a file or folder of the host gets into the guest.

    Raises InnkeeperError if it does not.
    """
    if (volume := memory_volumes.of_disk(source)) is not None:
        return Carried(volume.path, volume.storages)
    log = source.is_file() and (destination == TERMINATION_LOG or _KUBELETS_LOG.search(str(source)) is not None)
    if not ({"ro", "rro"} & set(options) or destination in POD_FILES or log):
        raise InnkeeperError(
            f'mounts: {destination}: what a container writes to {source} would be lost: with shared_fs = "none" the guest has a copy',
            hint=HINT,
        )
    if {"slave", "rslave"} & set(options):
        raise InnkeeperError(
            f'mounts: {destination}: later mounts of the host cannot appear in a copy (shared_fs = "none"): HostToContainer'
        )
    source = source.resolve()  # a mount stays with what a link leads to now
    try:
        file_tree.scan(source)
    except InnkeeperError as error:
        raise InnkeeperError(f"mounts: {destination}: {error.message}", hint=HINT) from error
    return Carried(copies.place(source), copy=source, log=log)


def write_message(path: Path, text: str) -> None:
    """Write a container's last message to kubelet's file.

    Raises OSError, also if that is not a plain file any more.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "wb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        file.write(text.encode())


def with_message_path(annotations: dict[str, Any], destination: str) -> dict[str, Any]:
    """Return annotations that name the file for the last message to the agent.

    GetDiagnosticData reads it.
    """
    return {**annotations, "io.kubernetes.container.terminationMessagePath": destination}
