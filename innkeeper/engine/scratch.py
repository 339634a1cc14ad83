"""The disk that a container writes to: a sparse file with an empty ext4.

An empty file system of each size is kept in the cache and copied, which takes a tenth of the time
of mke2fs. So all of one size have the same UUID and the same key of their hashed directories. Each
is the only one of its VM, and only its container writes to it.

    <cache>/scratch/<size>-<size of the file system>-<hash>.img
"""

import os
import subprocess
from pathlib import Path

from innkeeper import files, paths, programs
from innkeeper.errors import InnkeeperError
from innkeeper.vm.saved_state import copy_disk

NAME = "scratch.img"
KEPT = 16
"""Sizes that are kept, those that were used last."""
CONFIGURATION = Path("/etc/mke2fs.conf")
OPTIONS = ("-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard")


def make_disk(folder: Path, size: int, *, filesystem_mib: int | None = None) -> Path:
    """Make the disk in `folder`, of `size` bytes. Return its path. Raises InnkeeperError.

    The file system has no journal, because it never outlives its VM. It fills the disk unless it is
    to have `filesystem_mib` MiB.
    """
    program = programs.require("mke2fs")
    kept = _kept(program, size, filesystem_mib)
    path = folder / NAME
    try:
        if not kept.exists():
            _keep(program, kept, size, filesystem_mib)
        os.utime(kept)
        copy_disk(kept, path)
    except OSError as error:
        raise InnkeeperError(f"the scratch disk cannot be made: {error}") from error
    return path


def _kept(program: Path, size: int, filesystem_mib: int | None) -> Path:
    """Return where an empty file system is kept.

    Another mke2fs or other settings may make another one.
    """
    decided = [str(program), *OPTIONS, os.environ.get("MKE2FS_CONFIG", "")]
    for file in (program, CONFIGURATION):
        found = file.stat() if file.exists() else None
        decided.append(f"{found and (found.st_size, found.st_mtime_ns)}")
    return paths.cache_root() / "scratch" / f"{size}-{filesystem_mib or 0}-{files.sha256(repr(decided).encode())[:16]}.img"


def _keep(program: Path, kept: Path, size: int, filesystem_mib: int | None) -> None:
    """Make an empty file system and keep it. Raises InnkeeperError, OSError."""
    folder = kept.parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with files.locked(folder / ".lock", work="makes a scratch disk"):
        if kept.exists():
            return
        old = sorted(folder.glob("*.img"), key=lambda path: path.stat().st_mtime)[: 1 - KEPT]
        for path in (*old, *folder.glob(".*.img.*")):  # the latter of a process that was killed
            path.unlink()
        with files.replaced(kept) as part:
            _make(program, part, size, filesystem_mib)
            with part.open("rb+") as file:
                os.fsync(file.fileno())  # it has to be whole also after a crash of the host


def _make(program: Path, path: Path, size: int, filesystem_mib: int | None) -> None:
    os.truncate(path, size)
    argv = [str(program), *OPTIONS, str(path), *([f"{filesystem_mib}M"] if filesystem_mib else [])]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InnkeeperError(f"mke2fs failed on the scratch disk: {done.stderr.strip()}")
