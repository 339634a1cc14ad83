"""Storage driver `virtio-fs`: a shared directory of the host, named by its virtio-fs tag."""

from typing import TYPE_CHECKING

from agent.storage.driver import Context, Detach, mount_in_worker, plain_options, refuse_driver_options

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import Storage

NAME = "virtio-fs"


async def attach(storage: "Storage", context: Context) -> Detach | None:
    """Mount the tag `source`.

    Runs in a worker, because the host's daemon may be slow to answer the first request.
    """
    refuse_driver_options(storage)
    return await mount_in_worker("virtiofs", storage.source, storage.mount_point, plain_options(storage))
