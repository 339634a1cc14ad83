"""The control group of a VM on the host: QEMU, its helper processes and the shim are in it.

It is the group that runc would make for the container that the VM belongs to (`linux.cgroupsPath`).
For a pod it is below the pod's group, so that kubelet's limits hold for the VM and kubelet's
statistics show it. The shim enters the group before it starts anything, and what it starts is in it
from the first page on: cgroup v1 does not move memory that is charged already.

Under the systemd driver the path is `SLICE:PREFIX:NAME`. It is resolved to the group that systemd
would make, and that is made here, without systemd, as runc does for a path of cgroupfs.
"""

import errno
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from innkeeper.errors import InnkeeperError
from innkeeper.shim import mounts
from innkeeper.vm.process_info import kill

REMOVE_SECONDS = 3.0
"""Seconds to wait for the end of what is in a group. containerd gives the action `delete` five."""
NATURAL_SECONDS = 1.0
"""Seconds of these after which what is still in the group is killed."""
POLL_SECONDS = 0.01


class Hierarchy(NamedTuple):
    """A mounted tree of groups. Version 2 has one for all controllers, so it names none."""

    mount: Path
    version: int
    controllers: frozenset[str] = frozenset()


def hierarchies(mounted: Iterable[mounts.Mount]) -> list[Hierarchy]:
    """Return those of version 1, or the one of version 2 if there are none (cgroups(7))."""
    found: dict[frozenset[str], Hierarchy] = {}
    unified = None
    for mount in mounted:
        if mount.kind == "cgroup":
            controllers = mount.options - {"rw", "ro", "xattr", "noprefix", "clone_children"}
            found.setdefault(controllers, Hierarchy(mount.point, 1, controllers))
        elif mount.kind == "cgroup2" and unified is None:
            unified = Hierarchy(mount.point, 2)
    return list(found.values()) or ([unified] if unified else [])


def resolve(cgroups_path: str) -> str:
    """Return the path of a group below a hierarchy's mount, or "" for none.

    Raises InnkeeperError.
    """
    if cgroups_path.count(":") == 2 and not cgroups_path.startswith("/"):
        slice_, prefix, name = cgroups_path.split(":")
        if "/" in cgroups_path or not name:
            raise InnkeeperError(f"linux.cgroupsPath: {cgroups_path}: not SLICE:PREFIX:NAME of systemd")
        unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
        path = f"{_slice_path(slice_ or 'system.slice', cgroups_path)}/{unit}"
    else:
        path = cgroups_path
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InnkeeperError(f"linux.cgroupsPath: {cgroups_path}: .. is not allowed")
    return "/".join(parts)


def _slice_path(name: str, given: str) -> str:
    """Return where systemd has a slice: `a-b.slice` is below `a.slice` (systemd.slice(5))."""
    stem = name.removesuffix(".slice")
    if stem == "-":
        return ""
    if not name.endswith(".slice") or "" in stem.split("-"):
        raise InnkeeperError(f"linux.cgroupsPath: {given}: {name} is not a slice of systemd")
    words = stem.split("-")
    return "/".join(f"{'-'.join(words[: end + 1])}.slice" for end in range(len(words)))


class Cgroup:
    """One group: a folder in each hierarchy. Without a path it is no group, and nothing is done."""

    def __init__(self, path: str, trees: Iterable[Hierarchy] | None = None) -> None:
        self._path = path
        self._trees = [] if not path else list(hierarchies(mounts.all_mounts()) if trees is None else trees)
        self._before: dict[Path, str] = {}

    @property
    def folders(self) -> list[Path]:
        """The folders that `make` makes, and `remove_all` removes."""
        return [tree.mount / self._path for tree in self._trees]

    def make(self) -> None:
        """Make the folders. Raises OSError."""
        for tree in self._trees:
            folder = tree.mount
            for part in self._path.split("/"):
                if tree.version == 2:
                    _enable_controllers(folder)
                folder = folder / part
                folder.mkdir(exist_ok=True)
                if "cpuset" in tree.controllers:
                    _inherit_processors(folder)

    def enter(self) -> None:
        """Move this process into the group. Raises OSError."""
        own = Path("/proc/self/cgroup").read_text()
        for tree in self._trees:
            self._before[tree.mount] = _path_in(tree, own)
            (tree.mount / self._path / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        """Move what is left in the group back to where this process came from, and remove it.

        Raises OSError.
        """
        for tree in self._trees:
            folder = tree.mount / self._path
            home = tree.mount / self._before.get(tree.mount, "")
            for pid in _processes(folder):
                _move(pid, home if home.is_dir() else tree.mount, tree.mount)
        remove_all(self.folders)
        self._trees = []

    def limit_memory(self, limit: int) -> None:
        """Set the most bytes that all in the group may use. Raises OSError."""
        self._set("memory", "memory.limit_in_bytes", "memory.max", str(limit))

    def set_shares(self, shares: int) -> None:
        """Set the weight of the group's processor time, in the units of version 1.

        Raises OSError.
        """
        weight = 1 + (max(shares, 2) - 2) * 9999 // 262142  # as every runtime converts it
        self._set("cpu", "cpu.shares", "cpu.weight", str(shares), str(weight))

    def bind(self, cpus: str, mems: str) -> None:
        """Set the processors and memory nodes of the group.

        "" stands for those of the group above. Raises InnkeeperError.
        """
        for name, value in (("cpus", cpus), ("mems", mems)):
            try:
                self._bind(f"cpuset.{name}", value)
            except OSError as error:
                raise InnkeeperError(f"linux.resources.cpu.{name}: {value or 'all'}: {error.strerror}") from error

    def _bind(self, file: str, value: str) -> None:
        for tree in self._trees:
            folder = tree.mount / self._path
            if "cpuset" in tree.controllers:
                (folder / file).write_text(value or (folder.parent / file).read_text())
            elif tree.version == 2 and (folder / file).exists():
                (folder / file).write_text(value or "\n")

    def _set(self, controller: str, file1: str, file2: str, value: str, value2: str | None = None) -> None:
        """Write a limit where the controller is. A host without it has no such limit."""
        for tree in self._trees:
            folder = tree.mount / self._path
            if tree.version == 1 and controller in tree.controllers:
                (folder / file1).write_text(value)
            elif tree.version == 2 and (folder / file2).exists():
                (folder / file2).write_text(value if value2 is None else value2)


def remove_all(folders: Iterable[Path]) -> None:
    """Remove groups. What is still in them gets a moment to end by itself, then it is killed.

    Raises OSError if something stays.
    """
    begin = time.monotonic()
    for folder in folders:
        while not _removed(folder):
            waited = time.monotonic() - begin
            if waited > REMOVE_SECONDS:
                raise OSError(errno.EBUSY, "processes are still in the group", str(folder))
            if waited > NATURAL_SECONDS:
                _kill(folder)
            time.sleep(POLL_SECONDS)


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _processes(folder: Path) -> list[int]:
    try:
        return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []  # there is no such group any more


def _kill(folder: Path) -> None:
    """Kill what is in a group, but for this process."""
    for pid in _processes(folder):
        kill(pid, lambda pid: pid in _processes(folder))


def _move(pid: int, *folders: Path) -> None:
    """Move a process into the first of the groups that takes it. One that has ended needs none."""
    for folder in folders:
        try:
            (folder / "cgroup.procs").write_text(str(pid))
            return
        except OSError:
            continue


def _path_in(tree: Hierarchy, own: str) -> str:
    """Return this process's group in a hierarchy, without the leading slash.

    `own` is the text of /proc/self/cgroup.
    """
    for line in own.splitlines():
        _, names, path = line.split(":", 2)
        if (not names and tree.version == 2) or (names and frozenset(names.split(",")) == tree.controllers):
            return path.lstrip("/")
    return ""


def _inherit_processors(folder: Path) -> None:
    """Give a new group of version 1 the processors and memory nodes of the one above.

    Without any it takes no process.
    """
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (folder / name).read_text().strip():
            (folder / name).write_text((folder.parent / name).read_text())


def _enable_controllers(folder: Path) -> None:
    """Let the groups below a group of version 2 have every controller that it has.

    Each is asked for by itself. One is refused if processes of the group are subject to it.
    """
    for name in (folder / "cgroup.controllers").read_text().split():
        try:
            (folder / "cgroup.subtree_control").write_text(f"+{name}")
        except OSError:
            continue
