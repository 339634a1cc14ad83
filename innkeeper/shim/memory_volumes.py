"""Volumes in memory (an emptyDir with `medium: Memory`): a tmpfs of the guest in place of the host's.

So its files are in the VM's memory, are counted to the containers that write them, and never pass
virtiofsd. It is one for all containers of the pod, and the agent keeps it until the pod ends.
kubelet's tmpfs on the host tells its size, owner and mode, and stays empty.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from innkeeper.shim.mounts import all_mounts
from innkeeper.wire.pb import agent_pb2

PLUGIN = "kubernetes.io~empty-dir"
"""The folder of a pod's emptyDir volumes in kubelet's (`volumes/PLUGIN/NAME`)."""
FOLDER = "/run/kata-containers/sandbox/ephemeral"
"""Where the guest has them."""
FLAGS = ("nodev", "noexec", "nosuid")


@dataclass(frozen=True)
class MemoryVolume:
    """A volume, or a folder of it (`subPath`). `path` is where the guest has it, once the agent has mounted `storages`."""

    path: str
    storages: tuple[agent_pb2.Storage, ...]


def of(source: Path) -> MemoryVolume | None:
    """Return the volume that the host has mounted at `source`, or None if it is none in memory. Raises OSError."""
    point, found = source.resolve(), all_mounts()
    mounted = next((mount for mount in reversed(found) if mount.point == point), None)
    if mounted is None or mounted.kind != "tmpfs" or not source.is_dir():
        return None
    # kubelet binds a subPath to a place of its own, from where only the file system leads to the volume.
    whole = next((mount for mount in found if mount[:2] == (mounted.device, "/") and mount.point.parent.name == PLUGIN), None)
    if whole is None:
        return None
    path = f"{FOLDER}/{whole.point.name}"
    about, space = os.stat(whole.point), os.statvfs(whole.point)
    options = [f"mode={about.st_mode & 0o7777:o}", f"uid={about.st_uid}", f"gid={about.st_gid}"]
    options += [f"size={space.f_blocks * space.f_frsize}"] if space.f_blocks else []
    options += [flag for flag in FLAGS if flag in whole.flags]
    storages = [agent_pb2.Storage(driver="ephemeral", source="tmpfs", fstype="tmpfs", options=options, mount_point=path)]
    if mounted.root != "/":
        path += mounted.root
        about = os.stat(point)
        options = [f"mode={about.st_mode & 0o7777:o}", *([f"fsgid={about.st_gid}"] if about.st_gid else [])]
        storages.append(agent_pb2.Storage(driver="local", options=options, mount_point=path))
    return MemoryVolume(path, tuple(storages))
