"""Volumes in memory (an emptyDir with `medium: Memory`), as a tmpfs of the guest.

So its files are in the VM's memory, are counted to the containers that write them, and never pass
virtiofsd. It is one for all containers of the pod, and the agent keeps it until the pod ends.
kubelet's tmpfs on the host tells its size, owner and mode, and stays empty.

In a VM without a shared folder every emptyDir is such a volume: it has no disk for them.
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
    """A volume, or a folder of it (`subPath`).

    `path` is where the guest has it, once the agent has mounted `storages`.
    """

    path: str
    storages: tuple[agent_pb2.Storage, ...]


def of(source: Path) -> MemoryVolume | None:
    """Return the volume that the host has mounted at `source`, or None if it is none in memory.

    Raises OSError.
    """
    point, found = source.resolve(), all_mounts()
    mounted = next((mount for mount in reversed(found) if mount.point == point), None)
    if mounted is None or mounted.kind != "tmpfs" or not source.is_dir():
        return None
    # kubelet binds a subPath to a place of its own, from where only the file system leads to the
    # volume.
    whole = next((mount for mount in found if mount[:2] == (mounted.device, "/") and mount.point.parent.name == PLUGIN), None)
    if whole is None:
        return None
    space = os.statvfs(whole.point)
    options = [f"size={space.f_blocks * space.f_frsize}"] if space.f_blocks else []
    return _volume(whole.point, mounted.root[1:], [*options, *(flag for flag in FLAGS if flag in whole.flags)], point)


def of_disk(source: Path) -> MemoryVolume | None:
    """Return the volume for an emptyDir on the host's disk, or None if `source` is none.

    Raises OSError.
    """
    point, found = source.resolve(), all_mounts()
    mounted = next(mount for mount in reversed(found) if mount.point == point or mount.point in point.parents)
    # For a subPath see above: the path in the file system has the volume's name.
    path = Path(mounted.root) / point.relative_to(mounted.point)
    parts = path.parts
    if PLUGIN not in parts[:-1] or not source.is_dir():
        return None
    name = parts.index(PLUGIN) + 1
    volume, inside = Path(*parts[: name + 1]), "/".join(parts[name + 1 :])
    for mount in found:
        if mount.device == mounted.device and volume.is_relative_to(mount.root):
            whole = mount.point / volume.relative_to(mount.root)
            if whole.is_dir():
                return _volume(whole, inside, [], point)
    return None


def _volume(whole: Path, inside: str, options: list[str], point: Path) -> MemoryVolume:
    """Return the volume, or its folder `inside`.

    The host has the volume at `whole`, and `inside` at `point`.
    """
    path = f"{FOLDER}/{whole.name}"
    about = os.stat(whole)
    owner = [f"mode={about.st_mode & 0o7777:o}", f"uid={about.st_uid}", f"gid={about.st_gid}"]
    storages = [agent_pb2.Storage(driver="ephemeral", source="tmpfs", fstype="tmpfs", options=[*owner, *options], mount_point=path)]
    if inside:
        path += f"/{inside}"
        about = os.stat(point)
        owner = [f"mode={about.st_mode & 0o7777:o}", *([f"fsgid={about.st_gid}"] if about.st_gid else [])]
        storages.append(agent_pb2.Storage(driver="local", options=owner, mount_point=path))
    return MemoryVolume(path, tuple(storages))
