"""Snapshots: containers that were saved while they ran, kept by a tag until they are removed.

    <cache>/snapshots/<tag>/state, scratch.img  what `innkeeper.vm.snapshot` saves
    <cache>/snapshots/<tag>/snapshot.json       what a VM that starts from it needs to know
    <cache>/snapshots/<tag>/spec.json           the container's OCI specification
    <cache>/snapshots/<tag>/lock                flock(2): held shared while forks start from it
    <cache>/snapshots/.<random>/                one that is being made, its lock held

All of it may contain the container's secrets: its memory is in `state`.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from innkeeper import files, progress
from innkeeper.engine import control, records
from innkeeper.engine.control_handlers import DOCUMENT
from innkeeper.errors import InnkeeperError
from innkeeper.paths import program_name, snapshots_root
from innkeeper.vm import registry


class Snapshot(NamedTuple):
    """One snapshot: its tag, or "" if it has none, and its folder."""

    tag: str
    folder: Path

    def document(self) -> dict[str, Any]:
        """Return what is known of it. Raises InnkeeperError if it is damaged."""
        try:
            known = json.loads((self.folder / DOCUMENT).read_bytes())
            return {**known, "tag": self.tag, "size": self.size()}
        except (OSError, ValueError, TypeError) as error:
            raise InnkeeperError(f"snapshot {self.tag} is damaged: {error}", hint=f"{program_name()} snapshots rm {self.tag}") from error

    def size(self) -> int:
        """Return the bytes that it takes on disk."""
        return sum(path.stat().st_blocks * 512 for path in self.folder.iterdir())


def take(container: records.Container, tag: str) -> Snapshot:
    """Save a running container as the snapshot `tag`. Raises InnkeeperError."""
    if not registry.NAME.fullmatch(tag):
        raise InnkeeperError(f"invalid tag {tag!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed")
    folder = snapshots_root() / tag
    taken = InnkeeperError(f"snapshot {tag} exists", hint=f"remove it first: {program_name()} snapshots rm {tag}")
    if folder.exists():
        raise taken
    with temporary(container) as made:
        _sync(made.folder)
        try:
            made.folder.rename(folder)
        except OSError as error:  # it exists by now, and is not empty
            raise taken from error
    files.sync_folder(folder.parent)
    return Snapshot(tag, folder)


@contextmanager
def temporary(container: records.Container) -> Iterator[Snapshot]:
    """Context manager: save a running container, without a tag. It is removed unless it is renamed.

    Raises InnkeeperError.
    """
    _ = container.address  # the error of one that does not run
    root = snapshots_root()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = root / f".{os.urandom(6).hex()}"
    with files.locked(root / ".lock"):
        _sweep(root)
        folder.mkdir(mode=0o700)
        lock = files.lock(folder / "lock")
    try:
        with progress.step("saving the container"):
            done = control.ask(container.folder, "snapshot", into=str(folder))
        if done["warning"]:
            progress.warn(f"the snapshot is made, but {done['warning']}")
        progress.debug(f"saved in {done['seconds']} s, of which the container stood still for {done['frozen_seconds']} s")
        yield Snapshot("", folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextmanager
def found(tag: str) -> Iterator[Snapshot]:
    """Context manager: yield a snapshot, which is not removed before the end.

    Raises InnkeeperError.
    """
    folder = snapshots_root() / tag
    try:
        lock = files.lock(folder / "lock", flags=os.O_RDONLY, shared=True)
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(tag) from None
    try:
        yield Snapshot(tag, folder)
    finally:
        os.close(lock)


def exists(tag: str) -> bool:
    """Return whether there is a snapshot of this tag."""
    return bool(registry.NAME.fullmatch(tag)) and (snapshots_root() / tag).is_dir()


def every() -> list[Snapshot]:
    """Return all snapshots, oldest first."""
    found = [Snapshot(folder.name, folder) for folder in snapshots_root().glob("[!.]*/")]
    return sorted(found, key=lambda one: one.folder.stat().st_mtime)


def remove(tag: str) -> None:
    """Remove a snapshot. Raises InnkeeperError if forks start from it at this moment."""
    if not exists(tag):
        raise _missing(tag)
    folder = snapshots_root() / tag
    try:
        lock = files.lock(folder / "lock", wait=False)
    except BlockingIOError:
        raise InnkeeperError(f"snapshot {tag} is in use: a fork starts from it") from None
    try:
        hidden = folder.rename(folder.parent / f".{os.urandom(6).hex()}")
        shutil.rmtree(hidden)
    finally:
        os.close(lock)


def _missing(tag: str) -> InnkeeperError:
    return InnkeeperError(f"no such snapshot: {tag}", hint=f"{program_name()} snapshots lists them")


def _sweep(root: Path) -> None:
    """Remove what processes left that were killed while they made or removed a snapshot."""
    for folder in root.glob(".*/"):
        try:
            lock = files.lock(folder / "lock", wait=False)
        except OSError:
            continue  # in use, or being removed
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _sync(folder: Path) -> None:
    """Write the files to disk: a tag stands for a whole snapshot, also after a power failure."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
