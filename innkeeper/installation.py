"""Files that are installed on a host, and the list by which exactly these are removed.

The list is a file of its own in the prefix. It has each file with its sha256, and each link with
its target. A file that the operator has changed since belongs to the operator: it stays, and is
reported.
"""

import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from innkeeper.errors import InnkeeperError
from innkeeper.files import copy_sparse, hash_file, replaced

RECORD = "installed.json"
LINK = "link to "


class Installation:
    """What is installed below `prefix`, and outside of it for this prefix.

    `put` and `link` change files at once. `save` then writes the list.
    """

    def __init__(self, prefix: Path, record: str = RECORD) -> None:
        """Read the list of an earlier installation, if there is one."""
        self.prefix = prefix
        self._record = prefix / record
        self._entries: dict[str, str] = {}
        self._folders: list[str] = []
        if self._record.exists():
            document = json.loads(self._record.read_text())
            self._entries, self._folders = document["files"], document.get("folders", [])
        self._changed = {path for path in map(self._path, self._entries) if self._is_changed(path)}
        self._made: dict[str, str] = {}

    @property
    def exists(self) -> bool:
        """Return whether there is a list."""
        return self._record.exists()

    @property
    def paths(self) -> list[Path]:
        """The files of the list."""
        return [self._path(name) for name in self._entries]

    def put(self, path: Path, write: Callable[[Path], None], mode: int = 0o644) -> Path:
        """Write a file under a temporary name and rename it when it is complete.

        Returns the path, which is NAME.new if the operator has changed the file. Raises OSError.
        """
        target = path.with_name(f"{path.name}.new") if path in self._changed else path
        self._make_folder(target.parent)
        with replaced(target) as part:
            write(part)
            part.chmod(mode)
        self._made[self._name(target)] = hash_file(target)
        return target

    def put_text(self, path: Path, text: str, mode: int = 0o644) -> Path:
        """Write a text file, as `put` does."""
        return self.put(path, lambda part: _write(part, text), mode)

    def adopt(self, path: Path) -> None:
        """Add a file to the list that was made by others, from what is installed."""
        self._make_folder(path.parent)
        if str(path.parent) not in self._folders:
            self._folders.append(str(path.parent))
        self._made[self._name(path)] = hash_file(path)

    def link(self, path: Path, target: Path) -> Path:
        """Make a symbolic link. Raises InnkeeperError if something else is there."""
        if (path.exists() or path.is_symlink()) and self._entries.get(self._name(path)) != _content(path):
            raise InnkeeperError(f"{path} exists, and is not of this installation", hint="remove it first, or choose another folder")
        self._make_folder(path.parent)
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        self._made[self._name(path)] = _content(path)
        return path

    def save(self) -> None:
        """Write the list.

        Files of an earlier installation that were not made again, and are unchanged, are removed.
        """
        for name in self._entries.keys() - self._made.keys():
            if self._path(name) not in self._changed:
                self._path(name).unlink(missing_ok=True)
                del self._entries[name]
        self._entries = {**self._entries, **self._made}
        self._remove_empty_folders()
        text = json.dumps({"version": 1, "files": self._entries, "folders": self._folders}, indent=1)
        self._record.write_text(text + "\n")

    def remove(self) -> list[Path]:
        """Remove what was installed, and folders that are empty then.

        Returns the changed files, which stay. Raises InnkeeperError if there is no installation.
        """
        if not self.exists:
            raise InnkeeperError(f"{self.prefix} holds no installation", hint="was it another --prefix?")
        for path in map(self._path, self._entries):
            if path not in self._changed:
                path.unlink(missing_ok=True)
        self._record.unlink()
        self._remove_empty_folders()
        return sorted(self._changed)

    def _remove_empty_folders(self) -> None:
        """Remove empty folders: those made for this installation, and the prefix with its own."""
        below = {parent for path in map(self._path, self._entries) for parent in path.parents if self.prefix in (parent, *parent.parents)}
        for folder in sorted(below | {Path(name) for name in self._folders}, key=lambda path: len(path.parts), reverse=True):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _make_folder(self, folder: Path) -> None:
        for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            missing.mkdir()
            if str(missing) not in self._folders:
                self._folders.append(str(missing))

    def _is_changed(self, path: Path) -> bool:
        return (path.exists() or path.is_symlink()) and _content(path) != self._entries[self._name(path)]

    def _name(self, path: Path) -> str:
        """Return how the list names a file: relative to the prefix, if it is below."""
        return str(path.relative_to(self.prefix) if path.is_relative_to(self.prefix) else path)

    def _path(self, name: str) -> Path:
        return self.prefix / name  # an absolute name is taken as it is


def _content(path: Path) -> str:
    """Return what the list has for a file."""
    return f"{LINK}{os.readlink(path)}" if path.is_symlink() else hash_file(path)


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def check_handlers_are_free(names: Iterable[str], other: Path) -> None:
    """Raise InnkeeperError if the RuntimeClasses in `other` have one of the handlers `names`.

    A node has each once.
    """
    try:
        taken = re.findall(r"^handler: (\S+)$", other.read_text(), re.MULTILINE)
    except FileNotFoundError:
        return
    if both := sorted(set(names) & set(taken)):
        raise InnkeeperError(
            f"the handler {both[0]} is in {other} already",
            hint="uninstall the other one, or give our shim's another name: shim install --handler NAME",
        )


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content and keep its holes."""
    with open(source, "rb") as reader, open(target, "wb") as writer:
        copy_sparse(reader.fileno(), writer.fileno())
