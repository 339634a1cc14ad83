"""Loading the image's policy for mandatory access control (AppArmor or SELinux).

PID 1 does this once, at boot. docs/security.md describes the policies. A failure is not fatal: a
container that asks for a label of a policy that is not loaded is refused, with the label named.
"""

import os
from pathlib import Path

from agent import log
from agent.linux import lsm
from agent.linux.mount import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, mount_at

APPARMOR = "/usr/share/innkeeper/apparmor"
SELINUX = "/usr/share/innkeeper/selinux"
ATTRIBUTES = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC


def load() -> None:
    """Mount securityfs and load the policy of the security module that is active in this boot.

    Errors are logged.
    """
    try:
        mount_at(lsm.SECURITYFS, b"securityfs", attributes=ATTRIBUTES)
        if lsm.apparmor_active():
            lsm.load_apparmor(Path(APPARMOR).read_bytes())
        elif os.path.isdir(lsm.SELINUXFS):
            mount_at(lsm.SELINUXFS, b"selinuxfs", attributes=ATTRIBUTES)
            lsm.load_selinux(Path(SELINUX).read_bytes())
    except OSError as error:
        log.error(f"no mandatory access control: {error}", "policy")
