"""AppArmor and SELinux: `process.apparmorProfile`, `process.selinuxLabel`, `linux.mountLabel`.

A label is refused if the kernel does not run its module, or if the module does not know it.
docs/security.md lists the names that stand for the runtime's default profile.
"""

import os
import re
from dataclasses import replace

from agent.container.spec.mounts import Mount
from agent.container.spec.reader import SpecReader
from agent.errors import Refused
from agent.linux import lsm
from agent.linux.mount_options import CONTEXTS

UNCONFINED = "unconfined"
DEFAULT_PROFILE = "innkeeper-default"
RUNTIME_DEFAULTS = re.compile(r"runtime/default|docker-default|nerdctl-default|cri-containerd\.apparmor\.d|containers-default-[0-9.]+")
"""Names that engines and orchestrators use for the runtime's default profile.

Each is the name of a file on the engine's own host.
"""

UNLABELLED = frozenset(("proc", "sysfs", "cgroup", "cgroup2", "mqueue"))
"""Filesystems that are the kernel's view of something.

The policy labels the files in them. A mount option may not.
"""


def apparmor_profile(reader: SpecReader) -> str | None:
    """Return the loaded profile that `apparmorProfile` requests, or None if it requests none.

    Raises Refused.
    """
    field = reader.name("apparmorProfile")
    name = reader.string("apparmorProfile")
    if not name or name == UNCONFINED:
        return name or None
    if not lsm.apparmor_active():
        raise Refused(field, "AppArmor is not active")
    loaded = lsm.apparmor_profiles()
    if name not in loaded and RUNTIME_DEFAULTS.fullmatch(name):
        name = DEFAULT_PROFILE
    if name not in loaded:
        raise Refused(field, f"profile {name[:64]!r} is not loaded")
    return name


def selinux_context(reader: SpecReader, key: str) -> str:
    """Return the context that `key` requests, or "" for none. Raises Refused."""
    context = reader.string(key)
    if not context:
        return ""
    if not lsm.selinux_active():
        raise Refused(reader.name(key), "SELinux is not active")
    if not lsm.selinux_context_valid(context):
        raise Refused(reader.name(key), f"{context[:128]!r} is no context of the loaded policy")
    return context


def exec_writes(profile: str | None, context: str) -> list[tuple[str, bytes]]:
    """Return what a process writes below /proc to label its next program: (file, value) each."""
    writes = []
    if profile and profile != UNCONFINED:
        writes.append((lsm.apparmor_exec_attribute(), b"exec " + os.fsencode(profile)))
    if context:
        writes.append((lsm.SELINUX_EXEC_ATTRIBUTE, os.fsencode(context)))
    return writes


def with_context(mount: Mount, context: str) -> Mount:
    """Return a mount with the label of `linux.mountLabel`, if it is a new filesystem.

    Bind mounts and the kernel's own filesystems have labels already.
    """
    if not context or mount.bind or mount.remount or mount.type in UNLABELLED or any(key in CONTEXTS for key, _ in mount.data):
        return mount
    return replace(mount, data=(*mount.data, ("context", context)))
