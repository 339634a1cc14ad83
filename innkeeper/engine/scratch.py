"""The disk that a container writes to: a sparse file with an empty ext4."""

import subprocess
from pathlib import Path

from innkeeper import programs
from innkeeper.errors import InnkeeperError


def make_disk(folder: Path, size: int, *, filesystem_mib: int | None = None) -> Path:
    """Make the disk in `folder`, of `size` bytes. Return its path. Raises InnkeeperError.

    The file system has no journal, because it never outlives its VM. It fills the disk unless it is
    to have `filesystem_mib` MiB.
    """
    path = folder / "scratch.img"
    with path.open("wb") as file:
        file.truncate(size)
    argv = [str(programs.require("mke2fs")), "-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal"]
    argv += ["-E", "lazy_itable_init=1,nodiscard", str(path), *([f"{filesystem_mib}M"] if filesystem_mib else [])]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InnkeeperError(f"mke2fs failed on the scratch disk: {done.stderr.strip()}")
    return path
