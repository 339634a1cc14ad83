"""`linux` of the specification: namespaces, devices, cgroup, sysctls, restricted paths."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from agent.container.spec.labels import selinux_context
from agent.container.spec.memory_policy import MemoryPolicy, parse_memory_policy
from agent.container.spec.mounts import clean, parse_mappings
from agent.container.spec.net_devices import NetDevice, parse_net_devices
from agent.container.spec.reader import U32, SpecReader, absolute, choice
from agent.container.spec.resources import Resources, read_resources
from agent.container.spec.seccomp import Seccomp, parse_seccomp
from agent.errors import Refused
from agent.linux.mount_options import PROPAGATION

# The specification's names -> those of /proc/PID/ns.
NAMESPACES = {
    "pid": "pid",
    "network": "net",
    "mount": "mnt",
    "ipc": "ipc",
    "uts": "uts",
    "user": "user",
    "cgroup": "cgroup",
    "time": "time",
}
DEVICE_TYPES = ("c", "u", "b", "p")
SYSCTL_IPC = frozenset(f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"))
SYSCTL_NAME = re.compile(r"[a-zA-Z0-9_.:/-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device node to make. `mode` holds its permission bits."""

    field: str
    path: str
    type: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Linux:
    """The `linux` object.

    `namespaces` maps the names of /proc/PID/ns to a path to join, or to None for a new namespace.
    """

    namespaces: Mapping[str, str | None]
    uid_mappings: tuple[tuple[int, int, int], ...]
    gid_mappings: tuple[tuple[int, int, int], ...]
    time_offsets: tuple[tuple[str, int, int], ...]
    devices: tuple[Device, ...]
    cgroups_path: str
    cgroup_absolute: bool
    """Whether `cgroups_path` begins at the hierarchy's root and not at the caller's own cgroup."""
    resources: Resources
    rootfs_propagation: str
    seccomp: Seccomp | None
    sysctl: tuple[tuple[str, str], ...]
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    personality: int | None
    net_devices: tuple[NetDevice, ...]
    memory_policy: MemoryPolicy | None
    mount_label: str = ""


def parse_linux(reader: SpecReader, sandbox: frozenset[str]) -> Linux:
    """Return `linux` as an object. Raises Refused."""
    reader.refuse_known("intelRdt", reason="no resctrl mount (CONFIG_X86_CPU_RESCTRL)")
    namespaces = _namespaces(reader)
    resources = reader.child("resources")
    seccomp = reader.child("seccomp")
    linux = Linux(
        namespaces=namespaces,
        uid_mappings=parse_mappings(reader, "uidMappings"),
        gid_mappings=parse_mappings(reader, "gidMappings"),
        time_offsets=_time_offsets(reader),
        devices=tuple([_device(device) for device in reader.children("devices")]),
        cgroups_path=_cgroups_path(reader),
        cgroup_absolute=reader.string("cgroupsPath").startswith("/"),
        resources=read_resources(resources) if resources else Resources(),
        rootfs_propagation=_propagation(reader),
        seccomp=parse_seccomp(seccomp) if seccomp else None,
        sysctl=_sysctl(reader, sandbox.union(namespaces)),
        masked_paths=tuple(dict.fromkeys(absolute(path, reader.name("maskedPaths")) for path in reader.strings("maskedPaths"))),
        readonly_paths=tuple(dict.fromkeys(absolute(path, reader.name("readonlyPaths")) for path in reader.strings("readonlyPaths"))),
        personality=_personality(reader),
        net_devices=parse_net_devices(reader.child("netDevices")),
        memory_policy=parse_memory_policy(reader.child("memoryPolicy")),
        mount_label=selinux_context(reader, "mountLabel"),
    )
    reader.finish()
    _check_together(linux)
    return linux


def _namespaces(reader: SpecReader) -> dict[str, str | None]:
    result: dict[str, str | None] = {}
    for entry in reader.children("namespaces"):
        kind = entry.string("type")
        if kind not in NAMESPACES:
            raise Refused(entry.name("type"), f"{kind!r} is unknown")
        name = NAMESPACES[kind]
        if name in result:
            raise Refused(entry.name("type"), f"{kind!r} is listed twice")
        path = entry.string("path")
        result[name] = absolute(path, entry.name("path")) if path else None
        entry.finish()
    return result


def _check_together(linux: Linux) -> None:
    """Raise Refused for fields that contradict each other."""
    mapped = bool(linux.uid_mappings or linux.gid_mappings)
    if "user" not in linux.namespaces:
        if mapped:
            raise Refused("linux.uidMappings", "needs a user namespace")
    elif linux.namespaces["user"] is None:
        _check_mappings(linux.uid_mappings, "linux.uidMappings")
        _check_mappings(linux.gid_mappings, "linux.gidMappings")
    if linux.time_offsets and linux.namespaces.get("time", "absent") is not None:
        raise Refused("linux.timeOffsets", "needs a new time namespace")
    if linux.net_devices and "net" not in linux.namespaces:
        raise Refused("linux.netDevices", "needs a network namespace")


def _check_mappings(mappings: tuple[tuple[int, int, int], ...], field: str) -> None:
    """Raise Refused for mappings that a new user namespace cannot have.

    Id 0 must be mapped: the first process is root in the namespace until it becomes the program's
    user.
    """
    if not mappings:
        raise Refused(field, "missing, and the user namespace is new")
    if not any(first == 0 for first, _outer, _size in mappings):
        raise Refused(field, "container id 0 is not mapped")
    for side in (0, 1):
        ends = sorted([(entry[side], entry[side] + entry[2]) for entry in mappings])
        if any(end > following for (_, end), (following, _) in pairwise(ends)):
            raise Refused(field, "entries overlap")


def _time_offsets(reader: SpecReader) -> tuple[tuple[str, int, int], ...]:
    offsets = reader.child("timeOffsets")
    if offsets is None:
        return ()
    result = []
    for clock in offsets.document:
        if clock not in ("monotonic", "boottime"):
            raise Refused(offsets.name(str(clock)), "unknown")
        entry = offsets.required_child(clock)
        seconds = entry.integer("secs", -(1 << 62), 1 << 62, 0)
        result.append((clock, seconds, entry.integer("nanosecs", 0, 10**9 - 1, 0)))
        entry.finish()
    return tuple(result)


def _device(reader: SpecReader) -> Device:
    path = reader.string("path")
    if not path:
        raise Refused(reader.name("path"), "missing")
    kind = reader.string("type")
    if kind not in DEVICE_TYPES:
        raise Refused(reader.name("type"), f"{kind!r} is unknown")
    if ".." in path.split("/") or not path.strip("/."):
        raise Refused(reader.name("path"), f"{path[:64]!r} is not the path of a file, without ..")
    device = Device(
        field=reader.path,
        path=clean(absolute(path, reader.name("path"))),
        type=kind,
        major=reader.integer("major", 0, (1 << 31) - 1, 0),
        minor=reader.integer("minor", 0, (1 << 31) - 1, 0),
        mode=reader.integer("fileMode", 0, 0o177777, 0o666) & 0o7777,
        uid=reader.integer("uid", 0, U32 - 1, 0),
        gid=reader.integer("gid", 0, U32 - 1, 0),
    )
    reader.finish()
    return device


def _cgroups_path(reader: SpecReader) -> str:
    """Return the cleaned path of the cgroup below our own parent.

    systemd's `slice:prefix:name` becomes a path.
    """
    path = reader.string("cgroupsPath")
    field = reader.name("cgroupsPath")
    if len(path) > 4096:
        raise Refused(field, "longer than 4096 characters")
    parts = [part for part in path.replace(":", "/").split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Refused(field, f"{path[:64]!r} is not a path without ..")
    if path and not parts:
        raise Refused(field, f"{path[:64]!r} is the root itself")
    return "/".join(parts)


def _propagation(reader: SpecReader) -> str:
    value = reader.string("rootfsPropagation")
    if value and value.removeprefix("r") not in PROPAGATION and value not in PROPAGATION:
        raise Refused(reader.name("rootfsPropagation"), f"{value!r} is unknown")
    return value


def _sysctl(reader: SpecReader, namespaces: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """Return (path below /proc/sys, value) of each sysctl.

    Raises Refused for one that does not belong to a namespace of the container.
    """
    result = []
    for name, value in reader.mapping("sysctl").items():
        field = reader.name(f"sysctl.{name[:64]}")
        path = _sysctl_path(name, field)
        owner = sysctl_namespace(path)
        if owner is None:
            raise Refused(field, "does not belong to a namespace")
        if owner not in namespaces:
            raise Refused(field, f"needs a namespace of the container's own ({owner})")
        result.append((path, value))
    return tuple(result)


def _sysctl_path(name: str, field: str) -> str:
    """Return the path of a sysctl's name.

    Dots separate, unless the first separator is a slash (sysctl(8)).
    """
    first = next((character for character in name if character in "./"), "")
    parts = name.split("/") if first == "/" else [part.replace("/", ".") for part in name.split(".")]
    if not SYSCTL_NAME.fullmatch(name) or any(part in ("", ".", "..") for part in parts) or len(parts) < 2:
        raise Refused(field, "not a sysctl's name")
    return "/".join(parts)


def sysctl_namespace(path: str) -> str | None:
    """Return the kind of namespace that a sysctl belongs to, by its path below /proc/sys.

    None means that it applies to the whole VM.
    """
    dotted = path.replace("/", ".")
    if dotted in SYSCTL_IPC or dotted.startswith("fs.mqueue."):
        return "ipc"
    if dotted.startswith("net."):
        return "net"
    if dotted == "kernel.domainname":
        return "uts"
    if dotted.startswith("user."):
        return "user"
    return None


def _personality(reader: SpecReader) -> int | None:
    personality = reader.child("personality")
    if personality is None:
        return None
    personality.refuse_known("flags", reason="no flag is defined")
    domain = choice(personality.string("domain"), personality.name("domain"), {"LINUX": 0, "LINUX32": 8})
    personality.finish()
    return domain
