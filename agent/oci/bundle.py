"""From a bundle to what the core takes: config.json read once, paths made absolute, the cgroup's place decided."""

import json
import os
import re
from pathlib import Path
from typing import Any

from agent.container.host import HostContext
from agent.container.spec.mounts import BIND_TYPES
from agent.container.spec.reader import Document
from agent.errors import Refused
from agent.linux.mount import CGROUP2_SUPER_MAGIC, filesystem_magic

CONFIG = "config.json"
SIZE_MAX = 64 << 20
"""bytes"""
BINDS = ("bind", "rbind")
CGROUP_PLACES = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


def read_json(path: Path | int, field: str) -> dict[str, Any]:
    """A JSON object of a file. Raises Refused that names `field`."""
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
    """The bundle's specification, or that of a file which counts from it, independent of the folder that it is in."""
    return absolute_paths(read_json(bundle / config, config), bundle)


def absolute_paths(document: Document, bundle: Path) -> Document:
    """The document with paths that count from the bundle made absolute."""
    document = dict(document)
    root = document.get("root")
    if isinstance(root, dict) and isinstance(root.get("path"), str) and root["path"]:
        document["root"] = {**root, "path": os.path.join(bundle, root["path"])}
    mounts = document.get("mounts")
    if isinstance(mounts, list):
        document["mounts"] = [_mount(mount, bundle) for mount in mounts]
    return document


def _mount(mount: object, bundle: Path) -> object:
    """A relative source of a bind mount counts from the bundle. What is no mount at all is for the parser to refuse."""
    if not isinstance(mount, dict) or not isinstance(mount.get("source"), str) or not mount["source"]:
        return mount
    options = mount.get("options")
    bound = mount.get("type") in BIND_TYPES or (isinstance(options, list) and any(option in BINDS for option in options))
    return {**mount, "source": os.path.join(bundle, mount["source"])} if bound else mount


def cgroup_mount() -> Path:
    """Where the whole hierarchy of cgroup v2 is mounted. Raises Refused.

    At its usual place (the second is systemd's beside cgroup v1), else where the root of the hierarchy is mounted first and not hidden by
    another mount. Never a part of it, and never one that only stands later in the list: that may be a container's.
    """
    for place in CGROUP_PLACES:
        if _is_hierarchy(place):
            return Path(place)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields, _, (kind, *_rest) = (part.split(" ") for part in line.partition(" - "))
            place = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
            if kind == "cgroup2" and fields[3] == "/" and _is_hierarchy(place):
                return Path(place)
    raise Refused("linux.cgroupsPath", "cgroup v2 is not mounted here")


def _is_hierarchy(place: str) -> bool:
    """Whether cgroup v2 is what is found at a path."""
    try:
        fd = os.open(place, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return False
    magic = filesystem_magic(fd)
    os.close(fd)
    return magic == CGROUP2_SUPER_MAGIC


def host(root: Path, bundle: Path) -> HostContext:
    """Where containers are made: groups with a relative path below the parent of this process's group.

    Its parent, because a group that has processes cannot hand controllers on to groups below it. Raises Refused.
    """
    mount = cgroup_mount()
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        own = next((line[3:].rstrip("\n") for line in file if line.startswith("0::")), "/")
    parent = os.path.dirname(os.path.normpath(own)).lstrip("/")
    below = mount / parent if ".." not in parent.split("/") else mount
    return HostContext(below, root, cgroup_mount=mount, bundle=bundle)
