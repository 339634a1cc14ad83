"""Storage drivers `virtio-fs` and `9p`: a directory that the host shares, named by its tag."""

from typing import TYPE_CHECKING

from agent.storage.driver import Context, Detach, mount_in_worker, options_without, refuse_driver_options

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import Storage

FILESYSTEMS = {"virtio-fs": "virtiofs", "9p": "9p"}
"""Driver -> type of file system."""


async def attach(storage: "Storage", context: Context) -> Detach | None:
    """Mount the tag `source` with the given options (for 9p: trans=virtio, version=9p2000.L, ...).

    Runs in a worker, because the host's daemon may be slow to answer the first request.
    """
    refuse_driver_options(storage)
    options = options_without(storage, "bind", "remount")
    return await mount_in_worker(FILESYSTEMS[storage.driver], storage.source, storage.mount_point, options)
