"""`--security-opt apparmor=` and `label=`, with docker's meaning.

They set the fields for mandatory access control in a container's specification. The guest decides:
it refuses a profile or a label that it does not have, and the error names it.
"""

from collections.abc import Sequence

from innkeeper.errors import InnkeeperError
from innkeeper.files import sha256
from innkeeper.image.run_options import RunOptions

APPARMOR_PROFILE = "innkeeper-default"
"""The profile in the guest's image (rootfs/apparmor)."""

SELINUX_PARTS = {"user": "system_u", "role": "system_r", "type": "container_t", "level": "", "filetype": "container_file_t"}
"""The parts of `label=PART:VALUE` and their defaults.

The types are those of the guest's policy (rootfs/selinux). The default level is the container's
own.
"""

CATEGORIES = 1024
"""The number of categories, c0 to c1023, as policies define them."""


def apparmor_profile(options: RunOptions) -> str | None:
    """Return `process.apparmorProfile`, or None.

    Without --security-opt it is our own profile if the guest runs AppArmor.
    """
    return options.apparmor or (APPARMOR_PROFILE if options.mac == "apparmor" else None)


def selinux_labels(options: RunOptions, container_id: str) -> tuple[str, str] | None:
    """Return the contexts of the container's processes and of its files, or None.

    Raises InnkeeperError for an unknown part.
    """
    if "disable" in options.label or not (options.label or options.mac == "selinux"):
        if len(options.label) > 1:
            raise InnkeeperError("--security-opt label=disable: cannot be combined with another label=")
        return None
    parts = SELINUX_PARTS | {"level": f"s0:{','.join(categories(container_id))}"} | _parts(options.label)
    user, role, kind, level, filetype = parts.values()
    return f"{user}:{role}:{kind}:{level}", f"{user}:object_r:{filetype}:{level}"


def mount_context(options: RunOptions, container_id: str) -> list[str]:
    """Return the mount option that labels a container's file systems, or [] without SELinux."""
    labels = selinux_labels(options, container_id)
    return [f'context="{labels[1]}"'] if labels else []


def _parts(requested: Sequence[str]) -> dict[str, str]:
    parts = {}
    for entry in requested:
        name, _, value = entry.partition(":")
        if name not in SELINUX_PARTS or not value:
            known = ", ".join([f"{name}:VALUE" for name in SELINUX_PARTS])
            raise InnkeeperError(f"--security-opt label={entry}: not known", hint=f"known: disable, {known}")
        parts[name] = value
    return parts


def categories(container_id: str) -> list[str]:
    """Return two different categories derived from the container's id.

    Few other containers have the same pair.
    """
    digest = int(sha256(container_id.encode())[:16], 16)
    first, second = digest % CATEGORIES, digest // CATEGORIES % (CATEGORIES - 1)
    return [f"c{number}" for number in sorted((first, second + (second >= first)))]
