"""Emptying a directory that may contain mounts."""

import os

from agent.linux.mount_table import mount_table


def clear_directory(path: str) -> None:
    """Remove everything below `path` except mount points. Nothing mounted there is entered."""
    _clear(path, {entry.mountpoint for entry in mount_table()})


def _clear(path: str, mounted: set[str]) -> None:
    try:
        entries = list(os.scandir(path))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.path in mounted:
            continue
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)
            continue
        _clear(entry.path, mounted)
        try:
            os.rmdir(entry.path)
        except OSError:
            pass  # not empty: a mount point below was kept
