"""The root image as a partitioned disk: what a VM-based shim gives its guest as a plain block device (root=/dev/vda1).

    0        MBR with one partition, type 0x83
    3 MiB    partition 1: the root file system, to the end, a whole number of MiB

The first 3 MiB are where the header of an NVDIMM image goes, so that both kinds of disk can have one layout.
"""

import struct
from pathlib import Path

from innkeeper.build.store import JSON, Store
from innkeeper.errors import InnkeeperError

SECTOR = 512
MIB = 1 << 20
PARTITION_START = 3 * MIB
"""Where Kata's images have partition 1."""

DISK_SIGNATURE = 0x4B4E4E49
"""MBR bytes 440..443 ("INNK"): fixed, because a random one would change every image."""

_LINUX = 0x83
_LBA_ONLY = b"\xfe\xff\xff"
"""The head, sector and cylinder of an address that is beyond what they can say."""


def make_disk(store: Store, rootfs: Path) -> Path:
    """The step that put `root.erofs` of the step `rootfs` into a disk image: `innkeeper.img`."""
    inputs: dict[str, JSON] = {"rootfs": rootfs.name, "start": PARTITION_START, "signature": DISK_SIGNATURE, "layout": 1}
    return store.step("disk", inputs, lambda out: write_disk(rootfs / "root.erofs", out / "innkeeper.img"))


def write_disk(root: Path, disk: Path) -> None:
    """Write the disk image of a root image. What is between the boot record and the partition is a hole."""
    size = -(-root.stat().st_size // MIB) * MIB
    with open(root, "rb") as source, open(disk, "wb") as target:
        target.write(boot_record(PARTITION_START, size))
        target.seek(PARTITION_START)
        while piece := source.read(4 * MIB):
            target.write(piece)
        target.truncate(PARTITION_START + size)


def boot_record(start: int, size: int) -> bytes:
    """A master boot record with one Linux partition; `start` and `size` in bytes, both whole sectors below 2 TiB."""
    if start % SECTOR or size % SECTOR or (start + size) // SECTOR > 0xFFFFFFFF:
        raise InnkeeperError(f"a partition from byte {start} of {size} bytes cannot be written to an MBR")
    entry = struct.pack("<B3sB3sII", 0, _LBA_ONLY, _LINUX, _LBA_ONLY, start // SECTOR, size // SECTOR)
    return bytes(440) + struct.pack("<IH", DISK_SIGNATURE, 0) + entry + bytes(48) + b"\x55\xaa"
