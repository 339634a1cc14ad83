"""What the core needs besides a bundle's specification: JSON is read, the cgroup's path chosen."""

import json
import os
from pathlib import Path
from typing import Any

from agent.container.host_context import HostContext
from agent.errors import Refused
from agent.linux.mount import CGROUP2_SUPER_MAGIC, filesystem_magic
from agent.linux.mount_table import mount_table

CONFIG = "config.json"
SIZE_MAX = 64 << 20
"""Bytes."""
CGROUP_MOUNTPOINTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


def read_json(path: Path | int, field: str) -> dict[str, Any]:
    """Return the JSON object in a file. Raises Refused that names `field`."""
    try:
        with open(path, "rb") as file:
            text = file.read(SIZE_MAX + 1)
    except OSError as error:
        raise Refused(field, f"{path}: {error.strerror}") from error
    if len(text) > SIZE_MAX:
        raise Refused(field, f"longer than {SIZE_MAX} bytes")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(field, f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise Refused(field, "not a JSON object")
    return document


def cgroup_mount() -> Path:
    """Return the mount point of the whole cgroup v2 hierarchy. Raises Refused.

    It is one of the usual ones (the second is systemd's, beside cgroup v1). Otherwise it is the
    first mount of the hierarchy's root that no other mount covers. It is never a mount of a part of
    the hierarchy, and never one that is only later in the list: that may be a container's.
    """
    for usual in CGROUP_MOUNTPOINTS:
        if is_cgroup2(usual):
            return Path(usual)
    for entry in mount_table():
        if entry.filesystem == "cgroup2" and entry.root == "/" and is_cgroup2(entry.mountpoint):
            return Path(entry.mountpoint)
    raise Refused("linux.cgroupsPath", "cgroup v2 is not mounted here")


def is_cgroup2(path: str) -> bool:
    """Return whether a path shows cgroup v2."""
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return False
    magic = filesystem_magic(fd)
    os.close(fd)
    return magic == CGROUP2_SUPER_MAGIC


def host(root: Path, bundle: Path) -> HostContext:
    """Return the core's environment for a bundle.

    Cgroups with a relative path go below the parent of this process's own. They do not go below
    that itself: a cgroup that has processes cannot enable controllers for the cgroups below it
    (cgroups(7)). Raises Refused.
    """
    mount = cgroup_mount()
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        own = next((line[3:].rstrip("\n") for line in file if line.startswith("0::")), "/")
    parent = os.path.dirname(os.path.normpath(own)).lstrip("/")
    below = mount / parent if ".." not in parent.split("/") else mount
    return HostContext(below, root, cgroup_mount=mount, bundle=bundle)
