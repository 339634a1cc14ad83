"""Storage driver `9p`: a shared directory of the host, named by its 9p tag."""

from typing import TYPE_CHECKING

from agent.storage.driver import Context, Detach, mount_in_worker, plain_options, refuse_driver_options

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import Storage

NAME = "9p"


async def attach(storage: "Storage", context: Context) -> Detach | None:
    """Mount the tag `source` with the given options (trans=virtio, version=9p2000.L, ...)."""
    refuse_driver_options(storage)
    return await mount_in_worker("9p", storage.source, storage.mount_point, plain_options(storage))
