"""Turn the volumes of `-v` into shares of a VM and storages of the agent.

The VM starts one virtiofsd for each share (`innkeeper/vm/virtiofsd.py`).
"""

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from innkeeper.errors import InnkeeperError
from innkeeper.image.run_options import Volume
from innkeeper.wire.pb import agent_pb2

SANDBOX = "/run/kata-containers/sandbox"
"""The directory of the guest in which the storages of a run are mounted."""
SHARES_MAX = 20
"""The number of the host's file systems that volumes may be on.

Each takes a device, and the VM has 30 slots for all of its devices.
"""


@dataclass(frozen=True)
class VolumeShare:
    """Folders and files of one host file system, shared by one virtio-fs device (`vm.Share`).

    `tag` names the device. `paths` maps (path on the host, read-only) to the name of its folder in
    the share.
    """

    tag: str
    paths: Mapping[tuple[Path, bool], str]

    @property
    def read_only(self) -> bool:
        """True if every path is read-only."""
        return all(read_only for _, read_only in self.paths)


def plan_volumes(volumes: Sequence[Volume]) -> tuple[list[VolumeShare], list[str]]:
    """Return the shares for `volumes`, and the source in the guest of each volume.

    virtio-fs shares only folders, so a single file is shared as a folder with only this file in it,
    and the guest sees no other files. The same folder or file with the same access is shared once.
    All paths on one file system use one device, so the number of volumes is not limited. Other file
    systems have devices of their own, so that two files never have the same device and inode number
    in the guest.
    """
    groups: dict[int, dict[tuple[Path, bool], str]] = {}
    places = []
    for volume in volumes:
        mode = volume.host.stat().st_mode
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise InnkeeperError(f"-v {volume.host}: only folders and regular files can be shared with a virtual machine")
        host = volume.host.resolve()
        device = host.stat().st_dev
        paths = groups.setdefault(device, {})
        name = paths.setdefault((host, volume.read_only), str(len(paths)))
        places.append((device, name if stat.S_ISDIR(mode) else f"{name}/{host.name}"))
    if len(groups) > SHARES_MAX:
        raise InnkeeperError(f"-v: the volumes are on {len(groups)} file systems of the host, a VM can share at most {SHARES_MAX}")
    shares = {device: VolumeShare(f"volume{index}", paths) for index, (device, paths) in enumerate(groups.items())}
    return list(shares.values()), [f"{_share_place(shares[device])}/{name}" for device, name in places]


def _share_place(share: VolumeShare) -> str:
    return f"{SANDBOX}/volumes/{share.tag.removeprefix('volume')}"


def share_storage(share: VolumeShare, context: Sequence[str]) -> agent_pb2.Storage:
    """Return the storage that mounts a share. `context` are the options of an SELinux mount."""
    options = [*(["ro"] if share.read_only else []), *context]
    return agent_pb2.Storage(driver="virtio-fs", source=share.tag, fstype="virtiofs", mount_point=_share_place(share), options=options)
