"""The VMs of this user: one folder each below `vms_root()`.

    <id>/lock        flock(2), held exclusively by the owner while it lives. A process that can
                     take it shared knows that the owner is dead.
    <id>/state.json  the state of the VM, replaced as a whole so that readers never see half of it
    <id>/*.log       console.log, qemu.log, vsock.log, share-N.log
    <id>/...         sockets and the scratch disk, removed with the owner

Every change to the set of VMs is made under a lock of the whole registry. So a process that changes
a dead VM needs only a shared lock on it. It does not disturb the readers (`ps`), which take the
same lock shared for a moment, and they do not mistake it for an owner.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from innkeeper import files
from innkeeper.errors import InnkeeperError
from innkeeper.paths import program_name, vms_root

KEPT_SUFFIXES = (".json", ".log")
"""Suffixes of the files that remain of a VM that ended with `keep` set."""

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


class Record(NamedTuple):
    """A reader's view of a VM. `alive`: its owner is still running."""

    id: str
    folder: Path
    state: dict[str, Any]
    alive: bool

    @property
    def name(self) -> str:
        return str(self.state.get("name", ""))

    @property
    def console(self) -> Path:
        return self.folder / "console.log"

    def address(self, port: int) -> str:
        """Return the address of a vsock port, for `innkeeper.client.connect`.

        Raises InnkeeperError if the VM is not running.
        """
        template = self.state.get("address")
        if not self.alive or not template:
            raise InnkeeperError(f"{self.name or self.id} is not running")
        return str(template).replace("PORT", str(port))


class Entry:
    """The folder of a VM, locked by the process that runs it."""

    def __init__(self, id: str, folder: Path, lock: int, state: dict[str, Any]) -> None:
        self.id = id
        self.folder = folder
        self._lock = lock
        self._state = state

    @property
    def name(self) -> str:
        return str(self._state["name"])

    @property
    def keep(self) -> bool:
        return bool(self._state.get("keep"))

    def get(self, key: str) -> Any:
        return self._state.get(key)

    def update(self, **fields: Any) -> None:
        """Write `fields` to state.json. A value of None removes the field."""
        self._state.update(fields)
        self._state = {key: value for key, value in self._state.items() if value is not None}
        _write(self.folder / "state.json", self._state)

    def release(self) -> None:
        """Remove the folder, or with `keep` all but its logs and state. May be called twice."""
        if self._lock < 0:
            return
        with _registry_lock():
            _kill_orphans(self.folder)
            _clean(self.folder, keep=self.keep)
            os.close(self._lock)
            self._lock = -1


def create(name: str | None = None) -> Entry:
    """Create an entry for a new VM. Its name is its id if none is given.

    Raises InnkeeperError if the name is invalid or taken.
    """
    root = vms_root()
    if name is not None and not NAME.fullmatch(name):
        raise InnkeeperError(f"invalid container name {name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed")
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _registry_lock():
        if name is not None and (taken := [r for r in _records() if r.name == name]):
            raise InnkeeperError(f"the name {name} is already in use by VM {taken[0].id}", hint=f"{program_name()} rm -f {name}")
        id = os.urandom(6).hex()
        folder, lock = _locked_folder(root, id)
        state = {"version": 1, "id": id, "name": name or id, "owner": os.getpid(), "created": time.time(), "status": "created"}
        entry = Entry(id, folder, lock, state)
        entry.update()
        return entry


def outside(id: str, folder: Path) -> Entry:
    """Return an entry for a VM in a folder of the caller's, who makes and removes it.

    No list of VMs shows it, and `release` leaves it alone.
    """
    return Entry(id, folder, -1, {"version": 1, "id": id, "name": id, "owner": os.getpid(), "created": time.time(), "status": "created"})


def _locked_folder(root: Path, id: str) -> tuple[Path, int]:
    """Make the folder of VM `id`. Return it and its lock, held.

    It gets its name only once it is locked, so that no process sees it without an owner.
    """
    unnamed = root / f".{id}"
    unnamed.mkdir(mode=0o700)
    lock = files.lock(unnamed / "lock")
    return unnamed.rename(root / id), lock


def list_vms() -> list[Record]:
    """Return all VMs, oldest first, including those that ended and were kept."""
    return sorted(_records(), key=lambda r: float(r.state.get("created", 0)))


def has_owner(folder: Path) -> bool:
    """Return whether the owner of the VM in `folder` is running."""
    if (fd := _lock_of_dead(folder)) is not None:
        os.close(fd)
        return False
    return (folder / "lock").exists()


def wait_ended(folder: Path) -> None:
    """Wait until the owner of the VM in `folder` has ended."""
    try:
        os.close(files.lock(folder / "lock", flags=os.O_RDONLY, shared=True))
    except FileNotFoundError:
        pass  # removed by its owner


def remove(record: Record) -> None:
    """Remove the remains of a VM that has ended. Raises InnkeeperError if its owner still runs."""
    with _registry_lock():
        lock = _lock_of_dead(record.folder)
        if lock is None and has_owner(record.folder):
            raise InnkeeperError(f"{record.name} is still running", hint=f"{program_name()} stop {record.name}")
        try:
            _kill_orphans(record.folder)
            _clean(record.folder, keep=False)
        finally:
            if lock is not None:
                os.close(lock)


def sweep() -> int:
    """Clean up after owners that were killed: processes, sockets, disks.

    Return the number of VMs affected.
    """
    if not vms_root().is_dir():
        return 0
    count = 0
    with _registry_lock():
        for unnamed in vms_root().glob(".*/"):
            _remove_tree(unnamed)  # its owner was killed inside `create`
        for folder in _folders():
            lock = _lock_of_dead(folder, os.O_CREAT)
            if lock is None:
                continue
            try:
                count += _sweep_one(folder)
            finally:
                os.close(lock)
    return count


def _sweep_one(folder: Path) -> bool:
    state = _read(folder)
    if state.get("keep") and state.get("status") == "ended":
        return False
    _kill_orphans(folder)
    if state.get("keep"):
        _write(folder / "state.json", {**state, "status": "ended", "error": state.get("error") or "its owner was killed"})
    _clean(folder, keep=bool(state.get("keep")))
    return True


def _records() -> Iterator[Record]:
    for folder in _folders():
        state = _read(folder)
        if state:
            yield Record(folder.name, folder, state, has_owner(folder))


def _folders() -> list[Path]:
    try:
        return [p for p in vms_root().iterdir() if p.name[0] != "." and p.is_dir() and not p.is_symlink()]
    except FileNotFoundError:
        return []


def _read(folder: Path) -> dict[str, Any]:
    try:
        state = json.loads((folder / "state.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _write(path: Path, state: dict[str, Any]) -> None:
    with files.replaced(path) as part:
        part.write_text(json.dumps(state, indent=1) + "\n")


def _clean(folder: Path, *, keep: bool) -> None:
    if not keep:
        _remove_tree(folder)
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            _remove_tree(path)
        elif path.suffix not in KEPT_SUFFIXES and path.name != "lock":
            path.unlink(missing_ok=True)


def _kill_orphans(folder: Path) -> None:
    from innkeeper.vm import child_processes  # imports subprocess, which `ps` has no use for

    child_processes.kill_orphans(folder)


def _remove_tree(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _lock_of_dead(folder: Path, flags: int = 0) -> int | None:
    """Take the lock of a VM's folder shared and return it.

    Returns None if the owner lives or the lock file is missing. `flags` may be O_CREAT: an
    interrupted removal may have left a folder without a lock.
    """
    try:
        return files.lock(folder / "lock", flags=os.O_RDONLY | flags, shared=True, wait=False)
    except (FileNotFoundError, BlockingIOError):
        return None


@contextmanager
def _registry_lock() -> Iterator[None]:
    """Context manager: hold the lock of the whole registry."""
    root = vms_root()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with files.locked(root / ".lock"):
        yield
