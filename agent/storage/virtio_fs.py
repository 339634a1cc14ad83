"""A share of the host's, by its virtio-fs tag."""

from typing import TYPE_CHECKING

from agent.storage.driver import Context, Detach, mount_in_worker, plain_options, refuse_driver_options

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import Storage

NAME = "virtio-fs"


async def attach(storage: "Storage", context: Context) -> Detach | None:
    """Mount the tag `source`. In a worker: the first request to the host's daemon may take its time."""
    refuse_driver_options(storage)
    return await mount_in_worker("virtiofs", storage.source, storage.mount_point, plain_options(storage))
