"""`--security-opt apparmor=` and `label=`: what a container's specification asks of mandatory access control, with docker's meaning.

The guest decides: a profile or a label that it has not is refused there, by name.
"""

import hashlib
from collections.abc import Sequence

from innkeeper.errors import InnkeeperError
from innkeeper.image.options import RunOptions

APPARMOR_PROFILE = "innkeeper-default"
"""The profile in the guest's image (rootfs/apparmor)."""

SELINUX_PARTS = {"user": "system_u", "role": "system_r", "type": "container_t", "level": "", "filetype": "container_file_t"}
"""`label=PART:VALUE` and its defaults: types of the guest's policy (rootfs/selinux), and a level of the container's own."""

CATEGORIES = 1024
"""c0 to c1023, as policies have them."""


def apparmor_profile(options: RunOptions) -> str | None:
    """`process.apparmorProfile`: what was asked for, else our own where the guest runs AppArmor."""
    return options.apparmor or (APPARMOR_PROFILE if options.mac == "apparmor" else None)


def selinux_labels(options: RunOptions, container_id: str) -> tuple[str, str] | None:
    """The contexts of the container's processes and of its files; None without. Raises InnkeeperError for a part that is not known."""
    if "disable" in options.label or not (options.label or options.mac == "selinux"):
        if len(options.label) > 1:
            raise InnkeeperError("--security-opt label=disable: there is another label=")
        return None
    parts = SELINUX_PARTS | {"level": f"s0:{','.join(categories(container_id))}"} | _parts(options.label)
    user, role, kind, level, filetype = parts.values()
    return f"{user}:{role}:{kind}:{level}", f"{user}:object_r:{filetype}:{level}"


def mount_context(options: RunOptions, container_id: str) -> list[str]:
    """The mount option that labels file systems made for a container; empty without SELinux."""
    labels = selinux_labels(options, container_id)
    return [f'context="{labels[1]}"'] if labels else []


def _parts(asked: Sequence[str]) -> dict[str, str]:
    parts = {}
    for entry in asked:
        name, _, value = entry.partition(":")
        if name not in SELINUX_PARTS or not value:
            known = ", ".join([f"{name}:VALUE" for name in SELINUX_PARTS])
            raise InnkeeperError(f"--security-opt label={entry}: not known", hint=f"known: disable, {known}")
        parts[name] = value
    return parts


def categories(container_id: str) -> list[str]:
    """Two different categories out of the container's id: few other containers have the same pair."""
    digest = int.from_bytes(hashlib.sha256(container_id.encode()).digest()[:8])
    first, second = digest % CATEGORIES, digest // CATEGORIES % (CATEGORIES - 1)
    return [f"c{number}" for number in sorted((first, second + (second >= first)))]
