"""Setting the guest's own /etc/resolv.conf from the request that creates the sandbox."""

import os
from collections.abc import Sequence

from agent.errors import WrongState
from agent.linux.fd import OwnedFd
from agent.linux.mount import clone_tree, move_mount_path

RESOLV_CONF = "/etc/resolv.conf"
GENERATED = "/run/kata-containers/sandbox/resolv.conf"


def set_dns(lines: Sequence[str], resolv_conf: str = RESOLV_CONF, generated: str = GENERATED) -> None:
    """Write `lines` to a file and bind-mount it over /etc/resolv.conf.

    Does nothing if there are no lines or /etc/resolv.conf does not exist. Raises WrongState if
    /etc/resolv.conf is a directory, and OSError.
    """
    if not lines or not os.path.lexists(resolv_conf):
        return
    if os.path.isdir(resolv_conf):
        raise WrongState(f"{resolv_conf} is a directory")
    os.makedirs(os.path.dirname(generated), mode=0o755, exist_ok=True)
    with open(generated, "w") as file:
        file.write("\n".join(line.strip() for line in lines))
    with OwnedFd(os.open(generated, os.O_PATH | os.O_CLOEXEC)) as source:
        mount = clone_tree(source)
    with OwnedFd(mount):
        move_mount_path(mount, resolv_conf)
