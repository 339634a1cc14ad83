"""Linux security modules as far as containers use them: which are active, what is loaded, and how a process asks for a label.

AppArmor and SELinux exclude each other; `lsm=` on the kernel's command line chooses (kernel-config/security.conf has the default).
Which one is active stays so until the next boot; what is loaded may change.
"""

import os
from functools import cache

SECURITYFS = "/sys/kernel/security"
SELINUXFS = "/sys/fs/selinux"
APPARMOR_ENABLED = "/sys/module/apparmor/parameters/enabled"


@cache
def apparmor_active() -> bool:
    """Whether the kernel enforces AppArmor's profiles."""
    try:
        with open(APPARMOR_ENABLED, encoding="ascii") as file:
            return file.read().strip() == "Y"
    except OSError:
        return False


def apparmor_profiles() -> frozenset[str]:
    """The names of the loaded profiles; none where securityfs is not mounted."""
    try:
        with open(f"{SECURITYFS}/apparmor/profiles", encoding="utf-8", errors="surrogateescape") as file:
            return frozenset(line.rpartition(" (")[0] for line in file)
    except OSError:
        return frozenset()


@cache
def apparmor_exec_attribute() -> str:
    """Below /proc: where a process writes the profile of its next program. Kernels before 5.8 have only the shared one."""
    own = "self/attr/apparmor/exec"
    return own if os.path.exists(f"/proc/{own}") else "self/attr/exec"


SELINUX_EXEC_ATTRIBUTE = "self/attr/exec"
SELINUX_KEY_ATTRIBUTE = "self/attr/keycreate"


def selinux_active() -> bool:
    """Whether SELinux is on and has a policy. Before it has one the kernel takes any text for a valid context."""
    try:
        return bool(os.listdir(f"{SELINUXFS}/class"))
    except OSError:
        return False


def selinux_context_valid(context: str) -> bool:
    """Whether the loaded policy has this context (selinuxfs's `context` file)."""
    try:
        write_at_once(f"{SELINUXFS}/context", os.fsencode(context))
    except OSError:
        return False
    return True


def load_apparmor(profiles: bytes) -> None:
    """Load compiled profiles, in place of those of the same names. Raises OSError."""
    write_at_once(f"{SECURITYFS}/apparmor/.replace", profiles)


def load_selinux(policy: bytes) -> None:
    """Load a compiled policy; the kernel enforces it from then on. Raises OSError."""
    write_at_once(f"{SELINUXFS}/load", policy)


def write_at_once(path: str, data: bytes) -> None:
    """One write(2): these files take what they are given whole or not at all."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
