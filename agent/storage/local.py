"""Storage driver `local`: a directory of the guest's own filesystem, for a volume."""

import os
from typing import TYPE_CHECKING

from agent.errors import Refused
from agent.linux.fd import OwnedFd
from agent.linux.openat2 import open_without_links
from agent.storage.driver import Context, Detach, refuse_driver_options
from agent.storage.mountpoint import open_directory

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import Storage

SETGID = 0o2000


async def attach(storage: "Storage", context: Context) -> Detach | None:
    """Create the directory with the mode `mode=` (octal, default 0777) and the group `fsgid=`.

    With a group the setgid bit is set, so that new files in the directory inherit the group.
    """
    refuse_driver_options(storage)
    mode, group = 0o777, None
    for option in storage.options:
        key, _, value = option.partition("=")
        if key == "mode":
            mode = parse_number("storage.options", option, value, 8)
        elif key == "fsgid":
            group = parse_number("storage.options", option, value, 10)
        else:
            raise Refused("storage.options", f"{option} makes no sense with driver local")
    os.close(open_directory(storage.mount_point))
    set_owner_and_mode(storage.mount_point, mode, group)
    return None


def set_owner_and_mode(path: str, mode: int | None, group: int | None) -> None:
    """Set the mode and group of a directory unless None. A group also sets the setgid bit."""
    with OwnedFd(open_without_links(path, os.O_RDONLY | os.O_DIRECTORY)) as directory:
        if mode is None:
            mode = os.fstat(directory).st_mode & 0o7777
        if group is not None:
            os.fchown(directory, -1, group)
            mode |= SETGID
        os.fchmod(directory, mode)


def parse_number(field: str, option: str, text: str, base: int) -> int:
    """Parse `text` as a number of 32 bits. Raises Refused, naming `field` and `option`."""
    try:
        value = int(text, base)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 32:
        raise Refused(field, f"{option} is no number")
    return value
