"""Stand-ins at the system-call seam of agent.storage: mounts are noted in a table, and workers run in this process."""

import os
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agent import worker
from agent.linux.mount_table import MountEntry
from agent.storage import copyfile, disk, driver, ephemeral, erofs_layers, fs_group, guest_program, mounted, overlayfs, watchable

WITH_WORKERS = (copyfile, disk, driver, ephemeral, erofs_layers, fs_group, guest_program, overlayfs, watchable)


class Kernel:
    """What a test finds: `asked`, the file systems that were made; `mounts`, path -> type; `attributes` of clones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, dict[str, str | None], int]] = []
        self.mounts: dict[str, str] = {}
        self.attributes: list[tuple[int, int, bool]] = []
        self.propagation: list[tuple[int, bool]] = []
        self.fails: set[str] = set()
        self._types: dict[tuple[int, int], str] = {}

    def new_mount(self, filesystem: bytes, options: tuple[tuple[bytes, bytes | None], ...], attributes: int = 0) -> int:
        self._check("new_mount")
        given = {key.decode(): None if value is None else value.decode() for key, value in options}
        self.asked.append((filesystem.decode(), given, attributes))
        root = self.folder / f"mount-{len(self.asked)}"
        root.mkdir()
        return self._note(os.open(root, os.O_PATH), filesystem.decode())

    def clone_tree(self, fd: int, recursive: bool = False) -> int:
        return self._note(os.dup(fd), "rbind" if recursive else "bind")

    def set_attributes(self, fd: int, set_: int = 0, clear: int = 0, recursive: bool = False) -> None:
        self._check("set_attributes")
        self.attributes.append((set_, clear, recursive))

    def set_propagation(self, fd: int, propagation: int, recursive: bool = False) -> None:
        self._check("set_propagation")
        self.propagation.append((propagation, recursive))

    def move_mount(self, mount_fd: int, target_fd: int, path: str | bytes = b"") -> None:
        self._check("move_mount")
        kind = self._types[_identity(mount_fd)]
        self.mounts[os.readlink(f"/proc/self/fd/{target_fd}")] = kind

    def umount2(self, path: str, flags: int = 0) -> None:
        self._check("umount2")
        kind = self._types.get(_identity(int(path.rpartition("/")[2])))
        found = [point for point, filesystem in self.mounts.items() if filesystem == kind]
        if not found:
            raise OSError(22, "Invalid argument", path)
        del self.mounts[found[-1]]

    def mounts_at(self, path: str) -> list[MountEntry]:
        names = {"id": 7, "root": "/", "mountpoint": path, "source": "none"}
        return [MountEntry(filesystem=self.mounts[path], **names)] if path in self.mounts else []  # type: ignore[arg-type]

    def mount_id(self, fd: int) -> str:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if path in self.mounts:
            self._note(fd, self.mounts[path])
        return path if path in self.mounts else "the root's"

    def _note(self, fd: int, kind: str) -> int:
        self._types[_identity(fd)] = kind
        return fd

    def _check(self, call: str) -> None:
        if call in self.fails:
            raise OSError(5, f"{call} fails")


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _open_fds() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")}


async def run_here(work: Callable[[], bytes | None], name: str, keep: Sequence[int] = (), given: Sequence[int] = ()) -> bytes:
    """Run `work` as a worker does, but in this process. What it leaves open is closed, as at a process's end."""
    before = _open_fds()
    outcome = worker._attempt(work)
    for fd in (_open_fds() - before) | (_open_fds() & set(given)):
        os.close(fd)
    return worker._result(outcome, name, 0)


def install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Kernel:
    """Put a Kernel in the place of the system calls of every module of agent.storage."""
    kernel = Kernel(folder)
    calls = ("new_mount", "clone_tree", "set_attributes", "set_propagation", "move_mount", "umount2", "mounts_at")
    for module in [module for name, module in sys.modules.items() if name.startswith("agent.storage.")]:
        for call in calls:
            if hasattr(module, call):
                monkeypatch.setattr(module, call, getattr(kernel, call))
        if module in WITH_WORKERS:
            monkeypatch.setattr(module, "run_in_worker", run_here)
    monkeypatch.setattr(mounted, "_mount_id", kernel.mount_id)
    monkeypatch.setattr(copyfile, "confine", lambda directory: True)
    return kernel


def mode_of(path: Path) -> int:
    """Return the permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)
