"""Parsing a policy. Anything unknown is refused: a rule that is ignored protects nothing."""

import re
import tomllib
from dataclasses import dataclass, fields

from agent.errors import Refused
from agent.linux.capability import NAMES

FIELD = "policy"
MAX_TEXT = 256 << 10
VERSION = 1
STANDARD = "standard"
"""The entry of `mounts` and `storages` that stands for what every container has."""
_REGO = re.compile(r"^\s*(package|import|default)\s+[a-z]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class MountPattern:
    """An entry of `mounts` or `storages`: patterns that must all match. None matches anything."""

    destination: str | None = None
    source: str | None = None
    type: str | None = None
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy's rules. A rule that is None does not limit, an empty one allows nothing.

    Patterns are those of a shell, except that `*` also matches a slash.
    """

    name: str = ""
    rpcs: tuple[str, ...] | None = None
    images: tuple[str, ...] | None = None
    layers: tuple[str, ...] | None = None
    mounts: tuple[MountPattern, ...] | None = None
    storages: tuple[MountPattern, ...] | None = None
    capabilities: tuple[str, ...] | None = None
    commands: tuple[tuple[str, ...], ...] | None = None
    exec: tuple[tuple[str, ...], ...] | None = None
    hooks: tuple[str, ...] | None = None
    roots: tuple[str, ...] | None = None
    namespaces: tuple[str, ...] | None = None
    devices: tuple[str, ...] | None = None
    files: tuple[str, ...] | None = None


RULES = tuple(field.name for field in fields(Policy) if field.name != "name")
_MOUNTS = (
    ("/proc", "proc"),
    ("/dev", "tmpfs"),
    ("/dev/pts", "devpts"),
    ("/dev/shm", "tmpfs"),
    ("/dev/mqueue", "mqueue"),
    ("/sys", "sysfs"),
    ("/sys/fs/cgroup", "cgroup*"),
    ("/run", "tmpfs"),
)
STANDARD_MOUNTS = {
    "mounts": (
        *(MountPattern(destination, None, kind) for destination, kind in _MOUNTS),
        MountPattern("/dev/shm", "/run/kata-containers/sandbox/shm", "bind"),
    ),
    "storages": (
        MountPattern("/run/kata-containers/shared/containers/", "kataShared", "virtio-fs"),
        MountPattern("/run/kata-containers/sandbox/shm", "shm", "ephemeral"),
    ),
}


def parse(text: str) -> Policy:
    """Parse a policy. Raises Refused, naming the key, and for Rego with a message of its own."""
    if len(text.encode(errors="replace")) > MAX_TEXT:
        raise Refused(FIELD, f"more than {MAX_TEXT} bytes")
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        if _REGO.search(text):
            raise Refused(FIELD, "this is Rego, which this agent does not evaluate: see docs/policy.md for its own form") from None
        raise Refused(FIELD, f"is not TOML: {error}") from None
    if document.pop("version", None) != VERSION:
        raise Refused(f"{FIELD}.version", f"must be {VERSION}")
    name = document.pop("name", "")
    if not isinstance(name, str) or len(name) > 64 or not name.isprintable():
        raise Refused(f"{FIELD}.name", "is not a text of at most 64 characters")
    rules = {}
    for key, value in document.items():
        if key not in RULES:
            raise Refused(f"{FIELD}.{key}", "is no rule")
        rules[key] = _READERS.get(key, _patterns)(key, value)
    return Policy(name=name, **rules)  # type: ignore[arg-type]


def _list(key: str, value: object) -> list[object]:
    if not isinstance(value, list):
        raise Refused(f"{FIELD}.{key}", "is not a list")
    return value


def _patterns(key: str, value: object) -> tuple[str, ...]:
    found = []
    for entry in _list(key, value):
        if not isinstance(entry, str) or not entry:
            raise Refused(f"{FIELD}.{key}", "has an entry that is no text")
        found.append(entry)
    return tuple(found)


def _capabilities(key: str, value: object) -> tuple[str, ...]:
    names = _patterns(key, value)
    for name in names:
        if name not in NAMES:
            raise Refused(f"{FIELD}.{key}", f"{name[:40]!r} is no capability")
    return names


def _commands(key: str, value: object) -> tuple[tuple[str, ...], ...]:
    found = []
    for entry in _list(key, value):
        words = _list(key, entry)
        if not words or not all(isinstance(word, str) for word in words):
            raise Refused(f"{FIELD}.{key}", "has an entry that is no list of words")
        found.append(tuple(str(word) for word in words))
    return tuple(found)


def _mount_patterns(key: str, value: object) -> tuple[MountPattern, ...]:
    found: list[MountPattern] = []
    for entry in _list(key, value):
        if entry == STANDARD:
            found += STANDARD_MOUNTS[key]
            continue
        if not isinstance(entry, dict) or not entry:
            raise Refused(f"{FIELD}.{key}", f"has an entry that is neither {STANDARD!r} nor a table")
        for word, pattern in entry.items():
            wanted = bool if word == "read_only" else str
            if word not in ("destination", "source", "type", "read_only") or not isinstance(pattern, wanted):
                raise Refused(f"{FIELD}.{key}.{word[:40]}", "is no pattern of destination, source or type, nor read_only")
        found.append(MountPattern(**entry))
    return tuple(found)


_READERS = {
    "mounts": _mount_patterns,
    "storages": _mount_patterns,
    "capabilities": _capabilities,
    "commands": _commands,
    "exec": _commands,
}
