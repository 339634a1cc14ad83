"""Storage driver `scsi`: a SCSI disk with a filesystem, named by `ID:LUN`."""

from typing import TYPE_CHECKING

from agent.device.block import scsi_block
from agent.storage.disk import mount_disk, read
from agent.storage.driver import Context, Detach

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import Storage

NAME = "scsi"


async def attach(storage: "Storage", context: Context) -> Detach | None:
    """Wait for the disk, then mount it; see `agent.storage.disk.mount_disk`."""
    disk = read(storage)
    return await mount_disk(disk, await scsi_block(context.devices, storage.source), storage.mount_point, context)
