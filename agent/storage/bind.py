"""A file or directory of the guest's at a second place."""

import os
import stat
from typing import TYPE_CHECKING

from agent.errors import Refused
from agent.linux.mount import clone_tree, set_attributes
from agent.linux.openat2 import openat2
from agent.storage import options as mount_options
from agent.storage.driver import Context, Detach, mounting, refuse_driver_options
from agent.storage.mounted import Mounted, mount_on
from agent.storage.mountpoint import STRAIGHT, check_path
from agent.storage.options import Options

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import Storage

NAME = "bind"


async def attach(storage: "Storage", context: Context) -> Detach | None:
    """Bind `source` (no symbolic link in it) at the mount point, which becomes of its kind. Attributes hold for the mounts below too."""
    refuse_driver_options(storage)
    check_path("storage.source", storage.source)
    parsed = mount_options.parse(storage.options)
    if parsed.remount or parsed.data:
        word = "remount" if parsed.remount else parsed.data[0][0]
        raise Refused("storage.options", f"{word} makes no sense with driver bind")
    return await mounting(lambda: _bind(storage.source, storage.mount_point, parsed), storage.mount_point)


def _bind(source: str, mount_point: str, options: Options) -> Mounted:
    source_fd = openat2(-100, source, os.O_PATH, STRAIGHT)
    try:
        directory = stat.S_ISDIR(os.fstat(source_fd).st_mode)
        mount = clone_tree(source_fd, options.recursive)
    finally:
        os.close(source_fd)
    try:
        if options.attributes or options.cleared:
            set_attributes(mount, options.attributes, options.cleared, options.recursive)
    except OSError:
        os.close(mount)
        raise
    return mount_on(mount, mount_point, options, directory)
