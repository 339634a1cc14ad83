"""`spec`: write a config.json as a start for a bundle. It is the one that runc writes."""

import os
from pathlib import Path
from typing import Any

from agent.container.state import OCI_VERSION
from agent.errors import AlreadyExists, NotFound
from agent.oci.arguments import Option, Parsed
from agent.oci.bundle import CGROUP_MOUNTPOINTS, CONFIG, is_cgroup2
from agent.oci.command_table import Command, Context
from agent.oci.output import indented

CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FILES_MAX = 1024
SAFE = ("nosuid", "noexec", "nodev")
# destination, type, source, options
MOUNTS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("/proc", "proc", "proc", ()),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    ("/dev/shm", "tmpfs", "shm", (*SAFE, "mode=1777", "size=65536k")),
    ("/dev/mqueue", "mqueue", "mqueue", SAFE),
    ("/sys", "sysfs", "sysfs", (*SAFE, "ro")),
    ("/sys/fs/cgroup", "cgroup", "cgroup", (*SAFE, "relatime", "ro")),
)
NAMESPACES = ("pid", "network", "ipc", "uts", "mount")
MASKED = ("acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "/sys/firmware", "scsi")
READONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")


def template(rootless: bool) -> dict[str, Any]:
    """Return the document.

    `rootless` makes one for a user without privileges, who is root inside and has no network
    namespace.
    """
    namespaces = [kind for kind in NAMESPACES if not (rootless and kind == "network")]
    if is_cgroup2(CGROUP_MOUNTPOINTS[0]):  # and no v1 beside it
        namespaces.append("cgroup")
    linux: dict[str, Any]
    if rootless:
        namespaces.append("user")
        linux = {
            "uidMappings": [{"containerID": 0, "hostID": os.geteuid(), "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": os.getegid(), "size": 1}],
        }
    else:
        linux = {"resources": {"devices": [{"allow": False, "access": "rwm"}]}}
    linux["namespaces"] = [{"type": kind} for kind in namespaces]
    linux["maskedPaths"] = [os.path.join("/proc", name) for name in MASKED]
    linux["readonlyPaths"] = [os.path.join("/proc", name) for name in READONLY]
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [PATH, "TERM=xterm"],
            "cwd": "/",
            "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted", "ambient")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": FILES_MAX, "soft": FILES_MAX}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "runc",  # scripts that edit the template look for this
        "mounts": [_mount(*mount, rootless=rootless) for mount in MOUNTS],
        "linux": linux,
    }


def _mount(destination: str, kind: str, source: str, options: tuple[str, ...], *, rootless: bool) -> dict[str, Any]:
    # A user namespace may mount sysfs only with a network namespace of its own.
    if rootless and kind == "sysfs":
        kind, source, options = "none", "/sys", ("rbind", *options)
    if rootless:
        # Drops the groups that are not mapped.
        options = tuple([option for option in options if not option.startswith("gid=")])
    mount: dict[str, Any] = {"destination": destination, "type": kind, "source": source}
    return {**mount, "options": list(options)} if options else mount


def spec(context: Context, parsed: Parsed) -> int:
    """Run the subcommand. Return the exit status. Never overwrites a file."""
    path = Path(parsed.text("bundle") or ".", parsed.text("file") or CONFIG)
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(indented(template(parsed.switch("rootless")), "\t"))
    except FileExistsError:
        raise AlreadyExists(f"{path} exists already: remove it first") from None
    except FileNotFoundError:
        raise NotFound(f"{path.parent} does not exist") from None
    return 0


OPTIONS = (
    Option("bundle", "folder to write it to (the current one)", "DIR", short="b"),
    Option("file", "its name, if not config.json", "FILE", short="f"),
    Option("rootless", "for a user without rights (another runtime's: this one needs root)"),
)
COMMANDS = (Command("spec", "write a config.json to begin a bundle with", spec, arguments="", options=OPTIONS),)
