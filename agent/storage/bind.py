"""Storage driver `bind`: bind-mount a file or directory of the guest."""

from typing import TYPE_CHECKING

from agent.errors import Refused
from agent.storage import options as mount_options
from agent.storage.driver import Context, Detach, bind, mounting, refuse_driver_options
from agent.storage.mountpoint import check_path

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import Storage

NAME = "bind"


async def attach(storage: "Storage", context: Context) -> Detach | None:
    """Bind-mount `source` at the mount point; see `agent.storage.driver.bind`."""
    refuse_driver_options(storage)
    check_path("storage.source", storage.source)
    parsed = mount_options.parse(storage.options)
    if parsed.remount or parsed.data:
        word = "remount" if parsed.remount else parsed.data[0][0]
        raise Refused("storage.options", f"{word} makes no sense with driver bind")
    return await mounting(lambda: bind(storage.source, storage.mount_point, parsed), storage.mount_point)
