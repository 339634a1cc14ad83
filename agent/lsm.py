"""Mandatory access control: the policy that the image brings is loaded, once, by PID 1 at boot. docs/security.md says what is in it.

Nothing here is fatal: a label whose policy is not loaded is refused by name when a container asks for it.
"""

import os

from agent import log
from agent.linux import lsm
from agent.linux.mount import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, move_mount_path, new_mount

APPARMOR = "/usr/share/innkeeper/apparmor"
SELINUX = "/usr/share/innkeeper/selinux"
ATTRIBUTES = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC


def load() -> None:
    """Mount securityfs, and load what belongs to the module that this boot has chosen."""
    try:
        _mount(b"securityfs", lsm.SECURITYFS)
        if lsm.apparmor_active():
            lsm.load_apparmor(_read(APPARMOR))
        elif os.path.isdir(lsm.SELINUXFS):
            _mount(b"selinuxfs", lsm.SELINUXFS)
            lsm.load_selinux(_read(SELINUX))
    except OSError as error:
        log.error(f"no mandatory access control: {error}", "policy")


def _mount(filesystem: bytes, target: str) -> None:
    fd = new_mount(filesystem, (), ATTRIBUTES)
    try:
        move_mount_path(fd, target)
    finally:
        os.close(fd)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
