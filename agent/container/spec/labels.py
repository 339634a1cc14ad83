"""Labels of mandatory access control: `process.apparmorProfile`, `process.selinuxLabel`, `linux.mountLabel`.

A label of a module that this kernel does not run, or that the module does not know, is refused by name. docs/security.md has the
names that stand for the runtime's default profile.
"""

import os
import re
from dataclasses import replace

from agent.container.spec.mounts import CONTEXTS, Mount
from agent.container.spec.reader import Node
from agent.errors import Refused
from agent.linux import lsm

UNCONFINED = "unconfined"
DEFAULT_PROFILE = "innkeeper-default"
RUNTIME_DEFAULTS = re.compile(r"runtime/default|docker-default|nerdctl-default|cri-containerd\.apparmor\.d|containers-default-[0-9.]+")
"""How engines and orchestrators call the profile that a runtime gives when nobody chose one. Each names a file of the engine's own host."""

UNLABELLED = frozenset(("proc", "sysfs", "cgroup", "cgroup2", "mqueue"))
"""Filesystems that are the kernel's view of something: the policy labels what is in them, no mount option may."""


def apparmor_profile(node: Node) -> str | None:
    """The loaded profile that `apparmorProfile` asks for; None where it asks for nothing. Raises Refused."""
    field = node.name("apparmorProfile")
    name = node.string("apparmorProfile")
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


def selinux_context(node: Node, key: str) -> str:
    """The context that `key` asks for, "" for none. Raises Refused."""
    context = node.string(key)
    if not context:
        return ""
    if not lsm.selinux_active():
        raise Refused(node.name(key), "SELinux is not active")
    if not lsm.selinux_context_valid(context):
        raise Refused(node.name(key), f"{context[:128]!r} is no context of the loaded policy")
    return context


def exec_writes(profile: str | None, context: str) -> list[tuple[str, bytes]]:
    """What a process writes below /proc so that its next program is labelled: (file, value) each."""
    writes = []
    if profile and profile != UNCONFINED:
        writes.append((lsm.apparmor_exec_attribute(), b"exec " + os.fsencode(profile)))
    if context:
        writes.append((lsm.SELINUX_EXEC_ATTRIBUTE, os.fsencode(context)))
    return writes


def with_context(mount: Mount, context: str) -> Mount:
    """A new filesystem of the container labelled as `linux.mountLabel` says; binds and the kernel's own trees have labels already."""
    if not context or mount.bind or mount.remount or mount.type in UNLABELLED or any(key in CONTEXTS for key, _ in mount.data):
        return mount
    return replace(mount, data=(*mount.data, ("context", context)))
