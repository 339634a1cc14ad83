"""The parts of Linux security modules that containers use.

Which module is active, what is loaded, and how a process requests a label. AppArmor and SELinux
exclude each other: `lsm=` on the kernel's command line chooses (kernel-config/security.conf has the
default). The active module stays the same until the next boot. The loaded profiles and policy may
change.
"""

import os
from functools import cache

from agent.linux.fd import OwnedFd

SECURITYFS = "/sys/kernel/security"
SELINUXFS = "/sys/fs/selinux"
APPARMOR_ENABLED = "/sys/module/apparmor/parameters/enabled"


@cache
def apparmor_active() -> bool:
    """Return whether the kernel enforces AppArmor profiles."""
    try:
        with open(APPARMOR_ENABLED, encoding="ascii") as file:
            return file.read().strip() == "Y"
    except OSError:
        return False


def apparmor_profiles() -> frozenset[str]:
    """Return the names of the loaded profiles, or an empty set if securityfs is not mounted."""
    try:
        with open(f"{SECURITYFS}/apparmor/profiles", encoding="utf-8", errors="surrogateescape") as file:
            return frozenset(line.rpartition(" (")[0] for line in file)
    except OSError:
        return frozenset()


@cache
def apparmor_exec_attribute() -> str:
    """Return the path below /proc where a process writes the profile of its next program.

    Kernels before 5.8 have only the attribute that all modules share.
    """
    own = "self/attr/apparmor/exec"
    return own if os.path.exists(f"/proc/{own}") else "self/attr/exec"


SELINUX_EXEC_ATTRIBUTE = "self/attr/exec"
SELINUX_KEY_ATTRIBUTE = "self/attr/keycreate"


def selinux_active() -> bool:
    """Return whether SELinux is enabled and has a policy.

    Before a policy is loaded, the kernel accepts any text as a valid context.
    """
    try:
        return bool(os.listdir(f"{SELINUXFS}/class"))
    except OSError:
        return False


def selinux_context_valid(context: str) -> bool:
    """Return whether the loaded policy accepts this context (selinuxfs's `context` file)."""
    try:
        write_at_once(f"{SELINUXFS}/context", os.fsencode(context))
    except OSError:
        return False
    return True


def load_apparmor(profiles: bytes) -> None:
    """Load compiled profiles, replacing loaded ones of the same names. Raises OSError."""
    write_at_once(f"{SECURITYFS}/apparmor/.replace", profiles)


def load_selinux(policy: bytes) -> None:
    """Load a compiled policy, which the kernel enforces from then on. Raises OSError."""
    write_at_once(f"{SELINUXFS}/load", policy)


def write_at_once(path: str, data: bytes) -> None:
    """Write `data` in a single write(2): these files accept their content whole or not at all."""
    with OwnedFd(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) as fd:
        os.write(fd, data)
