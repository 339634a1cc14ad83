"""Storage drivers `virtio-fs` and `9p`: a directory that the host shares, named by its tag.

A host may plug a virtio-fs device in a moment before it asks for the mount, as it does in a VM that
starts from a template. So the device is waited for, like a disk.
"""

import errno
from typing import TYPE_CHECKING

from agent.device.lookup import SHARES, virtio_share
from agent.storage.driver import Context, Detach, mount_in_worker, options_without, refuse_driver_options

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import Storage

VIRTIO_FS = "virtio-fs"
FILESYSTEMS = {VIRTIO_FS: "virtiofs", "9p": "9p"}
"""Driver -> type of file system."""


async def attach(storage: "Storage", context: Context) -> Detach | None:
    """Mount the tag `source` with the given options (for 9p: trans=virtio, version=9p2000.L, ...).

    Runs in a worker, because the host's daemon may be slow to answer the first request.
    """
    refuse_driver_options(storage)
    options = options_without(storage, "bind", "remount")

    async def mount() -> Detach:
        return await mount_in_worker(FILESYSTEMS[storage.driver], storage.source, storage.mount_point, options)

    if storage.driver != VIRTIO_FS:
        return await mount()
    if context.devices.has(SHARES):
        await virtio_share(context.devices, storage.source)
        return await mount()
    # Before 6.9 the kernel lists no tags. It refuses the mount of a tag that it does not know.
    return await context.devices.retry(mount, errno.EINVAL)
