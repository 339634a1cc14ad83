"""What is in a built image: the files of its root, and the modules of its frozen programs.

The root is unpacked with fsck.erofs(1) into a temporary folder.
"""

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from innkeeper import programs
from innkeeper.errors import InnkeeperError
from innkeeper.files import hash_file
from innkeeper.guest import frozen
from innkeeper.guest.erofs_inodes import Inode, read_inodes

PROGRAMS = {"agent": "usr/lib/innkeeper/agent", "gateway": "usr/lib/innkeeper/gateway"}
"""The frozen programs of a root, by their names."""


@dataclass(frozen=True)
class Entry:
    """A file, folder or link of a root. `owner` is `USER:GROUP`."""

    kind: str
    mode: str
    owner: str
    size: int = 0
    sha256: str = ""
    target: str = ""


@contextmanager
def unpacked(image: Path) -> Iterator[Path]:
    """Context manager: unpack an erofs image and yield the folder. Raises InnkeeperError."""
    program = programs.require("mkfs.erofs").with_name("fsck.erofs")
    with tempfile.TemporaryDirectory(prefix="innkeeper-") as scratch:
        folder = Path(scratch) / "root"
        command = [str(program), f"--extract={folder}", "--no-preserve", str(image)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise InnkeeperError(f"{image}: cannot be unpacked: {done.stderr.strip() or done.stdout.strip()}")
        try:
            yield folder
        finally:
            _make_removable(folder)


def entries(image: Path, folder: Path) -> dict[str, Entry]:
    """Return everything in an image by path. `folder` is where it is unpacked."""
    inodes = read_inodes(image)
    return {name: _entry(folder / name, inodes[name]) for name in sorted(inodes)}


def modules(folder: Path) -> dict[str, dict[str, str]]:
    """Return the modules of each frozen program of an unpacked root, with a hash each."""
    return {name: frozen.modules(folder / path) for name, path in PROGRAMS.items() if (folder / path).is_file()}


def _entry(path: Path, inode: Inode) -> Entry:
    owner, mode = f"{inode.uid}:{inode.gid}", f"{stat.S_IMODE(inode.mode):04o}"
    if stat.S_ISLNK(inode.mode):
        return Entry("link", mode, owner, target=os.readlink(path))
    if stat.S_ISDIR(inode.mode):
        return Entry("folder", mode, owner)
    return Entry("file", mode, owner, path.stat().st_size, hash_file(path))


def _make_removable(folder: Path) -> None:
    """Let the owner write to all folders: a root has some that nobody may write to."""
    for path, _, _ in os.walk(folder):
        os.chmod(path, 0o700)
