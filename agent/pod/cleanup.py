"""Emptying a directory that may contain mounts."""

import os


def clear_directory(path: str) -> None:
    """Remove everything below `path` except mount points. Nothing mounted there is entered."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mounted = {line.split(" ")[4].replace("\\040", " ") for line in file}
    _clear(path, mounted)


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
