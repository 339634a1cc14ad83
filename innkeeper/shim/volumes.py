"""A container's mounts of the host, as mounts of the guest, and what these need there."""

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innkeeper.errors import InnkeeperError
from innkeeper.shim import copied_volumes, memory_volumes
from innkeeper.shim.mounts import below, source_mode
from innkeeper.wire.pb import agent_pb2

Document = dict[str, Any]

SHARE = "/run/kata-containers/shared/containers"
"""Where the agent has what the host shares."""
SHM = "/run/kata-containers/sandbox/shm"
"""The pod's /dev/shm in the guest."""
ROOT, VOLUMES = "rootfs", "volumes"
"""Folders of a container in the share."""


@dataclass(frozen=True)
class Bind:
    """A file or folder of the host that the guest has as `name` in the container's shared folder.

    `recursive`: if it is read-only, so is what the host has mounted below it. `follows`: what the
    host mounts below it later appears too.
    """

    name: str
    source: Path
    read_only: bool
    recursive: bool = True
    follows: bool = False


class Volumes:
    """What the mounts of one container need.

    `shares`: the VM has a folder that the host shares with it. `log` is the file for the
    container's last message, on the host and in the container, where that has a copy.
    """

    def __init__(self, agent_id: str, *, shares: bool) -> None:
        self._agent_id, self._shares = agent_id, shares
        self.binds: list[Bind] = []
        self.storages: list[agent_pb2.Storage] = []
        self.copies: list[Path] = []
        self.log: tuple[Path, str] | None = None

    def mount(self, index: int, mount: Document) -> Document:
        """Return a mount for the guest. Raises InnkeeperError for one that it cannot have."""
        options = [str(option) for option in mount.get("options") or ()]
        if mount.get("type") != "bind" and not {"bind", "rbind"} & set(options):
            return mount
        if mount["destination"] == "/dev/shm":
            return {**mount, "type": "bind", "source": SHM, "options": ["rbind"]}
        source = Path(mount["source"])
        _check_source(source, mount["destination"], options)
        if (volume := memory_volumes.of(source)) is not None:
            self.storages += volume.storages
            return {**mount, "type": "bind", "source": volume.path, "options": _guest_options(options, recursive=True)}
        return self._share(index, mount, source, options) if self._shares else self._copy(mount, source, options)

    def _share(self, index: int, mount: Document, source: Path, options: list[str]) -> Document:
        name = f"{VOLUMES}/{index}" + ("" if source.is_dir() else f"/{source.name}")
        read_only, recursive = bool({"ro", "rro"} & set(options)), "rro" in options or not _has_mounts_below(source)
        self.binds.append(Bind(name, source, read_only, recursive, bool({"slave", "rslave"} & set(options))))
        return {**mount, "source": f"{SHARE}/{self._agent_id}/{name}", "options": _guest_options(options, recursive)}

    def _copy(self, mount: Document, source: Path, options: list[str]) -> Document:
        carried = copied_volumes.carry(source, mount["destination"], options)
        self.storages += carried.storages
        self.copies += [carried.copy] if carried.copy is not None else []
        self.log = (source, mount["destination"]) if carried.log else self.log
        return {**mount, "type": "bind", "source": carried.source, "options": _guest_options(options, recursive=True)}


def _has_mounts_below(source: Path) -> bool:
    """Return whether the host has something mounted below a folder."""
    folder = source.resolve()
    return source.is_dir() and any(point != folder for point in below(folder))


def _guest_options(options: Sequence[str], recursive: bool) -> list[str]:
    """Return the options of a mount in the guest.

    There a share and the host's mounts below it are one mount. Read-only there would be so for all
    of it. Where it is not to be, only the host's mount is read-only.
    """
    made = ["ro" if option == "rro" else option for option in options]
    return made if recursive else ["rw" if option == "ro" else option for option in made]


def _check_source(source: Path, destination: str, options: Sequence[str]) -> None:
    if {"shared", "rshared"} & set(options):
        raise InnkeeperError(f"mounts: {destination}: mounts of a guest cannot appear on the host: bidirectional propagation")
    mode = source_mode(source, f"mounts: {destination}")
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise InnkeeperError(f"mounts: {destination}: {source} is neither a folder nor a regular file, a VM cannot share it")
