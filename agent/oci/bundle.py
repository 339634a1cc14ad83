"""Converts a bundle to the core's input.

config.json is read once, paths become absolute, and the cgroup's path is chosen.
"""

import json
import os
from pathlib import Path
from typing import Any

from agent.container.host import HostContext
from agent.container.spec.mounts import BIND_TYPES
from agent.container.spec.reader import Document
from agent.errors import Refused
from agent.linux.mount import CGROUP2_SUPER_MAGIC, filesystem_magic
from agent.linux.mount_table import mount_table

CONFIG = "config.json"
SIZE_MAX = 64 << 20
"""Bytes."""
BINDS = ("bind", "rbind")
CGROUP_PLACES = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


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


def load(bundle: Path, config: str = CONFIG) -> Document:
    """Return the bundle's specification, with its relative paths made absolute.

    `config` is the name of another file, relative to the bundle. Raises Refused.
    """
    return absolute_paths(read_json(bundle / config, config), bundle)


def absolute_paths(document: Document, bundle: Path) -> Document:
    """Return the document with the paths that are relative to the bundle made absolute."""
    document = dict(document)
    root = document.get("root")
    if isinstance(root, dict) and isinstance(root.get("path"), str) and root["path"]:
        document["root"] = {**root, "path": os.path.join(bundle, root["path"])}
    mounts = document.get("mounts")
    if isinstance(mounts, list):
        document["mounts"] = [_mount(mount, bundle) for mount in mounts]
    return document


def _mount(mount: object, bundle: Path) -> object:
    """Make the relative source of a bind mount absolute. Anything invalid is left to the parser."""
    if not isinstance(mount, dict) or not isinstance(mount.get("source"), str) or not mount["source"]:
        return mount
    options = mount.get("options")
    bound = mount.get("type") in BIND_TYPES or (isinstance(options, list) and any(option in BINDS for option in options))
    return {**mount, "source": os.path.join(bundle, mount["source"])} if bound else mount


def cgroup_mount() -> Path:
    """Return the mount point of the whole cgroup v2 hierarchy. Raises Refused.

    It is one of the usual ones (the second is systemd's, beside cgroup v1). Otherwise it is the
    first mount of the hierarchy's root that no other mount covers. It is never a mount of a part of
    the hierarchy, and never one that is only later in the list: that may be a container's.
    """
    for place in CGROUP_PLACES:
        if _is_hierarchy(place):
            return Path(place)
    for entry in mount_table():
        if entry.filesystem == "cgroup2" and entry.root == "/" and _is_hierarchy(entry.mountpoint):
            return Path(entry.mountpoint)
    raise Refused("linux.cgroupsPath", "cgroup v2 is not mounted here")


def _is_hierarchy(place: str) -> bool:
    """Return whether a path shows cgroup v2."""
    try:
        fd = os.open(place, os.O_PATH | os.O_DIRECTORY)
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
