"""`mounts` of the specification.

Each option becomes a mount attribute, a superblock flag, a propagation, or an option of the
filesystem.
"""

import os
from dataclasses import dataclass

from agent.container.spec.reader import U32, SpecReader
from agent.errors import Refused
from agent.linux.mount_options import (
    ATTRIBUTES,
    CONTEXTS,
    LENGTH_MAX,
    PROPAGATION,
    RECURSIVE_ATTRIBUTES,
    RECURSIVE_PROPAGATION,
    Change,
    combine,
)

# Superblock options that fsconfig(2) takes as flags. Their opposites are the default of a new
# mount. `silent` and `loud` have no effect: a filesystem's messages go to the caller of fsconfig(2)
# and not to the kernel's log.
SUPERBLOCK = frozenset(("sync", "dirsync", "lazytime", "mand", "iversion"))
SUPERBLOCK_OFF = frozenset(("async", "nolazytime", "nomand", "noiversion", "loud", "silent"))
BIND_TYPES = ("bind", "rbind")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One entry of `mounts`.

    `field` is its path in the document. `data` are the options for the filesystem itself.
    """

    field: str
    destination: str
    type: str
    source: str
    bind: bool
    remount: bool
    recursive: bool
    set: int
    clear: int
    recursive_set: int
    recursive_clear: int
    propagation: int
    recursive_propagation: int
    data: tuple[tuple[str, str | None], ...]
    copy_up: bool
    idmap: bool
    idmap_recursive: bool
    uid_mappings: tuple[tuple[int, int, int], ...]
    gid_mappings: tuple[tuple[int, int, int], ...]


class _Options:
    """The result of reading the options from left to right."""

    def __init__(self) -> None:
        self.bind = self.remount = self.recursive = self.copy_up = self.idmap = self.idmap_recursive = False
        self.attributes: Change = (0, 0)
        self.recursive_attributes: Change = (0, 0)
        self.propagation = self.recursive_propagation = 0
        self.data: list[tuple[str, str | None]] = []
        self.superblock: list[str] = []

    def read(self, word: str) -> None:
        if word in ATTRIBUTES:
            self.attributes = combine(self.attributes, ATTRIBUTES[word])
        elif word in RECURSIVE_ATTRIBUTES:
            self.recursive_attributes = combine(self.recursive_attributes, RECURSIVE_ATTRIBUTES[word])
        elif word in PROPAGATION:
            self.propagation = PROPAGATION[word]
        elif word in RECURSIVE_PROPAGATION:
            self.recursive_propagation = RECURSIVE_PROPAGATION[word]
        elif word in ("bind", "rbind"):
            self.bind, self.recursive = True, self.recursive or word == "rbind"
        elif word in ("idmap", "ridmap"):
            self.idmap, self.idmap_recursive = True, word == "ridmap"
        elif word == "tmpcopyup":
            self.copy_up = True
        elif word in SUPERBLOCK:
            self.superblock.append(word)
        elif word == "remount":
            self.remount = True
        elif word not in SUPERBLOCK_OFF and word != "defaults":
            key, equals, value = word.partition("=")
            if key in CONTEXTS:
                value = value.strip('"')
            self.data.append((key, value if equals else None))


def parse_mount(reader: SpecReader, bundle: str) -> Mount:
    """Return one entry of `mounts` as an object. Raises Refused.

    A bind mount's relative source is below `bundle`, and refused if that is "".
    """
    destination = reader.string("destination")
    if not destination:
        raise Refused(reader.name("destination"), "missing")
    if not destination.startswith("/"):
        reader.warnings.append(f"{reader.name('destination')}: relative, taken from /")
        destination = f"/{destination}"
    if ".." in destination.split("/") or len(destination) > 4095:
        raise Refused(reader.name("destination"), f"{destination[:64]!r} is not a path without ..")
    if not destination.strip("/."):
        raise Refused(reader.name("destination"), "a mount over / itself")
    options = _Options()
    words = reader.strings("options")
    if sum(map(len, words)) + len(words) > LENGTH_MAX:
        raise Refused(reader.name("options"), f"longer than {LENGTH_MAX} bytes together")
    for index, word in enumerate(words):
        if not word or ("," in word and word.partition("=")[0] not in CONTEXTS):
            raise Refused(reader.name(f"options[{index}]"), f"{word[:64]!r} is not one option")
        options.read(word)
    kind = reader.string("type")
    bind = options.bind or kind in BIND_TYPES
    source = reader.string("source")
    if bind and source:
        source = os.path.join(bundle, source)
    mount = Mount(
        field=reader.path,
        destination=destination,
        type=kind,
        source=source,
        bind=bind,
        remount=options.remount,
        recursive=options.recursive or kind == "rbind",
        set=options.attributes[0],
        clear=options.attributes[1],
        recursive_set=options.recursive_attributes[0],
        recursive_clear=options.recursive_attributes[1],
        propagation=options.propagation,
        recursive_propagation=options.recursive_propagation,
        data=tuple([(word, None) for word in options.superblock] + options.data),
        copy_up=options.copy_up,
        idmap=options.idmap,
        idmap_recursive=options.idmap_recursive,
        uid_mappings=parse_mappings(reader, "uidMappings"),
        gid_mappings=parse_mappings(reader, "gidMappings"),
    )
    reader.finish()
    _check_mount(reader, mount)
    return mount


def _check_mount(reader: SpecReader, mount: Mount) -> None:
    if not mount.remount:
        _check_source(reader, mount)
    if mount.copy_up and (mount.type != "tmpfs" or mount.bind or mount.remount):
        raise Refused(reader.name("options"), "tmpcopyup is for a new tmpfs")
    if mount.idmap or mount.uid_mappings or mount.gid_mappings:
        if not mount.bind or mount.remount:
            raise Refused(reader.name("uidMappings"), "only on bind mounts")
        if bool(mount.uid_mappings) != bool(mount.gid_mappings):
            raise Refused(reader.name("uidMappings"), "needs gidMappings, and these need it")
    if below_proc(mount.destination) and not (mount.bind and clean(mount.destination) in PROC_FILES):
        raise Refused(reader.name("destination"), f"{mount.destination} is below /proc")
    if clean(mount.destination) == "/proc" and not mount.bind and not mount.remount and mount.type != "proc":
        raise Refused(reader.name("type"), f"{mount.type!r} cannot be mounted on /proc")


def _check_source(reader: SpecReader, mount: Mount) -> None:
    if mount.bind:
        if not mount.source.startswith("/"):
            raise Refused(reader.name("source"), f"{mount.source!r} is not an absolute path")
        if mount.data:
            raise Refused(reader.name("options"), f"{mount.data[0][0]!r} means nothing on a bind mount")
    elif not mount.type:
        raise Refused(reader.name("type"), "missing")
    elif mount.type == "none":
        raise Refused(reader.name("type"), "none needs the option bind, rbind or remount")


# Files of /proc that a caller may cover, as lxcfs does. Everything else below /proc stays the
# kernel's.
_PROC_FILES = (
    *("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo"),
    *("net/dev", "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"),
)
PROC_FILES = frozenset(f"/proc/{name}" for name in _PROC_FILES)


def below_proc(destination: str) -> bool:
    """Return whether a destination is below /proc by its name."""
    return clean(destination).startswith("/proc/")


def clean(path: str) -> str:
    """Return a path from / without empty components and single dots."""
    return "/" + "/".join([part for part in path.split("/") if part not in ("", ".")])


def parse_mappings(reader: SpecReader, key: str) -> tuple[tuple[int, int, int], ...]:
    """Return id mappings: (container, host, size) each. Raises Refused."""
    result = []
    for mapping in reader.children(key):
        entry = (
            mapping.integer("containerID", 0, U32, 0),
            mapping.integer("hostID", 0, U32, 0),
            mapping.integer("size", 1, U32, 0),
        )
        mapping.finish()
        if entry[2] == 0:
            raise Refused(mapping.name("size"), "missing")
        result.append(entry)
    if len(result) > 340:
        raise Refused(reader.name(key), f"{len(result)} lines, the kernel takes 340")
    return tuple(result)


def mapping_lines(mappings: tuple[tuple[int, int, int], ...]) -> bytes:
    """Return mappings in the format of /proc/PID/uid_map."""
    return b"".join([b"%d %d %d\n" % entry for entry in mappings])
