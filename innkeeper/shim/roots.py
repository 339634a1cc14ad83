"""A container's root that is made of disks: mounts of containerd as disks of the guest.

A snapshotter describes a root by a list of mounts. With block devices or images (blockfile,
devmapper) it is one file system, which becomes one disk. The erofs snapshotter gives a writable
ext4 image, an erofs image for each layer, the upmost first, and then an overlay of them all. This
last mount names the others by their position, in templates like `{{ mount 0 }}/upper`, because
containerd leaves all of them to us (see `features`). Here they name the places in the guest
where the agent has mounted the disks.

Layers may be merged (`fsmeta.erofs`): one erofs has the folders and names of all, and the layers,
which its options name in order (`device=`), have the files' data. All of them are disks.
"""

import json
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from innkeeper.errors import InnkeeperError
from innkeeper.shim.mounts import source_mode
from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.wire.pb import agent_pb2

FILE_SYSTEMS = ("ext4", "xfs", "erofs")
"""Mounts of these types are disks."""
CONTAINERS = "/run/kata-containers"
"""Where the agent has what belongs to one container."""
ROOT, LAYERS = "rootfs", "layers"
CREATE_DIRECTORY = "io.katacontainers.volume.overlayfs.create_directory"
MAKE_DIRECTORY, VERITY = "X-containerd.mkdir.path=", "X-containerd.dmverity="
DEVICE = "device="
"""The option by which an erofs names a further disk.

It is a path for containerd, `ID:LUN` for the agent.
"""
_TEMPLATE = re.compile(r"\{\{ *(mount|overlay) +(\d+)(?: +(\d+))? *\}\}")


@dataclass(frozen=True)
class RootDisk:
    """A file or block device of the host with a file system. `options` are the agent's.

    `layers` are those that hold the data of the layers that are merged into it, in their order.
    """

    path: Path
    filesystem: str
    options: tuple[str, ...]
    layers: tuple[Path, ...] = ()

    @property
    def read_only(self) -> bool:
        """Whether the guest cannot write to it."""
        return self.filesystem == "erofs" or "ro" in self.options


@dataclass(frozen=True)
class DiskRoot:
    """The disks of a root, and the mount over them: none if the one disk is the root."""

    disks: tuple[RootDisk, ...]
    top: pb.Mount | None

    def path(self, agent_id: str) -> str:
        """Return where the root is in the guest."""
        return f"{CONTAINERS}/{agent_id}/{ROOT}"

    @property
    def files(self) -> list[tuple[Path, bool]]:
        """What is to be plugged into the VM, each with whether the guest cannot write to it."""
        return [(path, disk.read_only) for disk in self.disks for path in (disk.path, *disk.layers)]

    def storages(self, agent_id: str, addresses: Sequence[str]) -> list[agent_pb2.Storage]:
        """Return what the agent is asked to mount.

        `addresses` are those of the plugged `files`. Raises InnkeeperError.
        """
        root, left = self.path(agent_id), iter(addresses)
        places = [f"{CONTAINERS}/{agent_id}/{LAYERS}/{index}" for index in range(len(self.disks))] if self.top else [root]
        made = []
        for disk, place in zip(self.disks, places, strict=True):
            address = next(left)
            options = [*disk.options, *(f"{DEVICE}{next(left)}" for _ in disk.layers)]
            made.append(agent_pb2.Storage(driver="scsi", source=address, fstype=disk.filesystem, options=options, mount_point=place))
        return [*made, _top(self.top, places, root)] if self.top else made


def plan(mounts: Sequence[pb.Mount], *, shares: bool = True) -> DiskRoot | None:
    """Return the root that `mounts` are, or None if they are to be mounted on the host, and shared.

    Raises InnkeeperError, also if the VM has nothing to share it by.
    """
    if not mounts or mounts[0].type.removeprefix("mkfs/") not in FILE_SYSTEMS:
        if not shares:
            raise InnkeeperError(
                'rootfs: with shared_fs = "none" a root must be made of disks, and this one is a folder of the host',
                hint='take containerd\'s snapshotter erofs, blockfile or devmapper, or shared_fs = "virtio-fs"',
            )
        return None
    *below, last = mounts
    if last.type in FILE_SYSTEMS:
        if below:
            raise InnkeeperError(f"rootfs: {len(mounts)} disks, and no mount that makes one root of them")
        return DiskRoot((_disk(last),), None)
    root = DiskRoot(tuple(map(_disk, below)), last)
    root.storages("check", [""] * len(root.files))  # what is wrong with the templates is told before a VM boots
    return root


def _disk(mount: pb.Mount) -> RootDisk:
    if mount.type not in FILE_SYSTEMS:
        raise InnkeeperError(f"rootfs: a mount of type {mount.type} is not supported among the disks of a root")
    options, layers = [], []
    for option in mount.options:
        if option.startswith(DEVICE) and mount.type == "erofs":
            layers.append(_checked(option.removeprefix(DEVICE)))
        elif option.startswith(VERITY):
            options += _verity(Path(option.removeprefix(VERITY)))
        elif option != "loop":
            options.append(option)
    return RootDisk(_checked(mount.source), mount.type, tuple(options), tuple(layers))


def _checked(source: str) -> Path:
    """Return the path of a disk. Raises InnkeeperError if it can be none."""
    mode = source_mode(Path(source), "rootfs")
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise InnkeeperError(f"rootfs: {source} is neither a file nor a block device")
    return Path(source)


def _verity(path: Path) -> list[str]:
    """Return the options by which the guest checks every block of a layer.

    `path` holds the root hash. Raises InnkeeperError.
    """
    try:
        document = json.loads(path.read_bytes())
        root_hash, offset = str(document["roothash"]), int(document["hashoffset"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InnkeeperError(f"rootfs: {path}: no root hash of dm-verity: {error}") from error
    prefix = "X-kata.dmverity"
    return [f"{prefix}-enabled=true", f"{prefix}.roothash={root_hash}", f"{prefix}.hashoffset={offset}"]


def _top(mount: pb.Mount, places: Sequence[str], root: str) -> agent_pb2.Storage:
    """Return the mount that makes one root of the disks, which are mounted at `places`."""
    options, made = [], []
    for option in mount.options:
        text = _filled(option, places)
        if text == option and text.startswith(("upperdir=", "workdir=")):
            raise InnkeeperError(
                f"rootfs: {text}: a folder of the host cannot be the writable layer in a VM",
                hint="set default_size of containerd's erofs snapshotter: the writable layer is a disk then",
            )
        if text.startswith(MAKE_DIRECTORY):
            made.append(f"{CREATE_DIRECTORY}={_directory(text.removeprefix(MAKE_DIRECTORY))}")
        else:
            options.append(text)
    kind = mount.type.rpartition("/")[2]
    if kind == "overlay":
        return agent_pb2.Storage(
            driver="overlayfs", source="overlay", fstype="overlay", options=options, driver_options=made, mount_point=root
        )
    if kind == "bind" and not made:
        return agent_pb2.Storage(driver="bind", source=_filled(mount.source, places), fstype="bind", options=options, mount_point=root)
    raise InnkeeperError(f"rootfs: disks under a mount of type {mount.type} are not supported")


def _filled(text: str, places: Sequence[str]) -> str:
    """Return `text` with the templates of containerd's mount manager replaced.

    Raises InnkeeperError.
    """

    def place(match: re.Match[str]) -> str:
        first = int(match[2])
        last = first if match[3] is None else int(match[3])
        if (match[1] == "mount") != (match[3] is None) or max(first, last) >= len(places):
            raise InnkeeperError(f"rootfs: {text}: there are {len(places)} disks")
        step = 1 if first <= last else -1
        return ":".join(places[index] for index in range(first, last + step, step))

    filled = _TEMPLATE.sub(place, text)
    if "{{" in filled:
        raise InnkeeperError(f"rootfs: {text}: the template is not known")
    return filled


def _directory(text: str) -> str:
    """Return the path of PATH[:MODE].

    Raises InnkeeperError for a mode that the agent does not make.
    """
    path, _, mode = text.partition(":")
    if mode and int(mode.partition(":")[0] or "755", 8) != 0o755:
        raise InnkeeperError(f"rootfs: {text}: folders of a root's layers are made with mode 0755")
    return path
