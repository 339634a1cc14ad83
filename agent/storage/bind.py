"""Storage driver `bind`: bind-mount a file or directory of the guest."""

from typing import TYPE_CHECKING

from agent.storage.driver import Context, Detach, bind, mount_async, options_without, refuse_driver_options
from agent.storage.mountpoint import check_path

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import Storage


async def attach(storage: "Storage", context: Context) -> Detach | None:
    """Bind-mount `source` at the mount point; see `agent.storage.driver.bind`."""
    refuse_driver_options(storage)
    check_path("storage.source", storage.source)
    options = options_without(storage, "remount", data=False)
    return await mount_async(lambda: bind(storage.source, storage.mount_point, options), storage.mount_point)
