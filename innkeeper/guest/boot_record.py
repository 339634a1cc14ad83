"""A record of the guest that a run has found, so that the next run need not look through the build.

To find that everything is in the store, the pipeline imports the whole build, and reads and hashes
some hundred files. Together that is a third of the processor time of a short `run`. The record has
the outcome, and the state of every file of the source tree that the build may read, as git's index
does: inode, size and times. The kernel changes a file's ctime with its content, and nobody can set
it.

    <cache>/boot-files-<variant>-<kernel>.json
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from innkeeper import files, paths

if TYPE_CHECKING:
    from innkeeper.guest import BootFiles

INPUTS = ("agent", "guest.lock", "innkeeper", "kernel-config", "pyproject.toml", "rootfs")
"""What a build may read of the source tree: data, and the code that describes the steps."""
SETTLED_NS = 2_000_000_000
"""The minimal age in nanoseconds of the youngest file of a record.

Two later changes may share one time stamp.
"""


def state(project: Path | None = None) -> str:
    """Return the state of everything that a build of the source tree depends on, as text.

    Raises OSError.
    """
    project = project or paths.project_root()
    lines = [str(paths.store_root())]
    for name in INPUTS:
        place = project / name
        entries = _below(str(place)) if place.is_dir() else iter([(str(place), place.lstat())])
        lines += [
            f"{path} {found.st_ino} {found.st_size} {found.st_mode} {found.st_mtime_ns} {found.st_ctime_ns}" for path, found in entries
        ]
    return "\n".join(lines)


def _below(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the files below a folder with their state, in a fixed order.

    Python's caches are left out.
    """
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    yield from _below(entry.path)
            elif not entry.name.endswith(".pyc"):
                yield entry.path, entry.stat(follow_symlinks=False)


def recall(variant: str, kernel: str, now: str) -> "BootFiles | None":
    """Return the guest that was found in the state `now`, or None."""
    from innkeeper.guest import BootFiles

    try:
        known = json.loads(_path(variant, kernel).read_bytes())
        if known["state"] != now:
            return None
        given = known["boot_files"]
        for name in ("kernel", "rootfs", "initrd"):
            given[name] = None if given[name] is None else Path(given[name])
        found = BootFiles(**{**given, "parameters": tuple(given["parameters"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no record, or not one of this version
    return found if all(path.exists() for path in (found.kernel, found.rootfs, found.initrd) if path is not None) else None


def keep(variant: str, kernel: str, before: str, found: "BootFiles") -> None:
    """Keep what was found in the state `before`.

    Not if a file was changed a moment ago, and not Debian's kernel: one of ours may be built later.
    Raises OSError.
    """
    youngest = max(int(line.rsplit(" ", 1)[1]) for line in before.splitlines()[1:])
    if time.time_ns() - youngest < SETTLED_NS or not found.kernel_is_ours:
        return
    known = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(found).items()}
    with files.replaced(_path(variant, kernel)) as part:
        part.write_text(json.dumps({"state": before, "boot_files": known}))


def _path(variant: str, kernel: str) -> Path:
    return paths.cache_root() / f"boot-files-{variant}-{kernel}.json"
