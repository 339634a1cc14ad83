"""Options of mount(8) and the OCI specification for mount attributes and propagation."""

from agent.linux import mount as m

Change = tuple[int, int]
"""(MOUNT_ATTR_* bits to set, bits to clear)"""


def _switch(on: str, off: str, bit: int) -> dict[str, Change]:
    return {on: (bit, 0), off: (0, bit)}


ATTRIBUTES: dict[str, Change] = {
    **_switch("ro", "rw", m.MOUNT_ATTR_RDONLY),
    **_switch("nosuid", "suid", m.MOUNT_ATTR_NOSUID),
    **_switch("nodev", "dev", m.MOUNT_ATTR_NODEV),
    **_switch("noexec", "exec", m.MOUNT_ATTR_NOEXEC),
    "noatime": (m.MOUNT_ATTR_NOATIME, m.MOUNT_ATTR__ATIME),
    "strictatime": (m.MOUNT_ATTR_STRICTATIME, m.MOUNT_ATTR__ATIME),
    **dict.fromkeys(("atime", "relatime", "norelatime", "nostrictatime"), (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME)),
    **_switch("nodiratime", "diratime", m.MOUNT_ATTR_NODIRATIME),
    **_switch("nosymfollow", "symfollow", m.MOUNT_ATTR_NOSYMFOLLOW),
}
RECURSIVE_ATTRIBUTES = {f"r{word}": change for word, change in ATTRIBUTES.items()}
PROPAGATION = {"private": m.MS_PRIVATE, "shared": m.MS_SHARED, "slave": m.MS_SLAVE, "unbindable": m.MS_UNBINDABLE}
RECURSIVE_PROPAGATION = {f"r{word}": flag for word, flag in PROPAGATION.items()}
CONTEXTS = frozenset(("context", "fscontext", "defcontext", "rootcontext"))
"""Options of SELinux for any filesystem.

Their values contain commas, and mount(8) wants them in double quotes for that reason.
"""
LENGTH_MAX = 4096
"""Most bytes of all options of a mount together."""


def combine(first: Change, then: Change) -> Change:
    """Return the change that two options make, one after the other. The last one wins."""
    return first[0] & ~then[1] | then[0], first[1] & ~then[0] | then[1]
