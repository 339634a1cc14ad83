"""The root image as a disk for VM-based shims.

The same file works as a plain block device and as a memory device (NVDIMM).

    0        boot record: partition 1 and partition 2
    4 KiB    info block of a memory device: the guest sees the device from 2 MiB on
    2 MiB    the same boot record, with partitions counted from here
    3 MiB    partition 1: the root file system                          /dev/vda1, /dev/pmem0p1
             partition 2: its dm-verity hash tree, without a superblock /dev/vda2, /dev/pmem0p2

Both partitions are a multiple of 1 MiB, the file is a multiple of 128 MiB. Areas without data are
holes. kata-contract.md has the parameters.
"""

import struct
from pathlib import Path

from innkeeper.errors import InnkeeperError
from innkeeper.guest.store import JSON, Store

SECTOR = 512
MIB = 1 << 20
MEMORY_START = 2 * MIB
"""Offset at which the memory device begins in the file.

Its pages must be the processor's large pages, hence 2 MiB.
"""
PARTITION_START = 3 * MIB
"""Offset of partition 1, the same as in Kata's images."""
SIZE_STEP = 128 * MIB
"""Size of a guest memory section: memory devices are counted in such sections."""

DISK_SIGNATURE = 0x4B4E4E49
"""MBR bytes 440..443 ("INNK"). Fixed, because a random signature would change every image."""

INFO_START = 4096
INFO_SIZE = 4096
INFO_UUID = b"innkeeper-image\1"
"""Fixed for the same reason."""

_LINUX = 0x83
_LBA_ONLY = b"\xfe\xff\xff"
"""The head, sector and cylinder that mark an address beyond the range of this notation."""
_INFO_VERSION = (0, 2)
_MODE_RAM = 1
"""PFN mode: the guest keeps its page structures in its own memory, not on the device."""


def make_disk(store: Store, rootfs: Path, verity: Path) -> Path:
    """Combine `root.erofs` of the step `rootfs` and its hash tree into a disk image.

    Returns the step's folder, which contains `innkeeper.img`.
    """
    inputs: dict[str, JSON] = {
        "rootfs": rootfs.name,
        "verity": verity.name,
        "start": PARTITION_START,
        "step": SIZE_STEP,
        "signature": DISK_SIGNATURE,
        "layout": 2,
    }
    return store.step("disk", inputs, lambda out: write_disk(rootfs / "root.erofs", verity / "tree", out / "innkeeper.img"))


def write_disk(root: Path, tree: Path, disk: Path) -> None:
    """Write the disk image for a root image and its hash tree."""
    sizes = [-(-part.stat().st_size // MIB) * MIB for part in (root, tree)]
    starts = [PARTITION_START, PARTITION_START + sizes[0]]
    with open(disk, "wb") as target:
        target.write(boot_record(list(zip(starts, sizes, strict=True))))
        target.seek(INFO_START)
        target.write(info_block())
        target.seek(MEMORY_START)
        target.write(boot_record([(start - MEMORY_START, size) for start, size in zip(starts, sizes, strict=True)]))
        for start, part in zip(starts, (root, tree), strict=True):
            target.seek(start)
            with open(part, "rb") as source:
                while data := source.read(4 * MIB):
                    target.write(data)
        target.truncate(-(-(starts[1] + sizes[1]) // SIZE_STEP) * SIZE_STEP)


def boot_record(partitions: list[tuple[int, int]]) -> bytes:
    """Return a master boot record with up to four Linux partitions.

    Each is given as (start, size) in bytes. Raises InnkeeperError unless these are whole sectors
    below 2 TiB.
    """
    entries = b""
    for start, size in partitions:
        if start % SECTOR or size % SECTOR or (start + size) // SECTOR > 0xFFFFFFFF:
            raise InnkeeperError(f"a partition from byte {start} of {size} bytes cannot be written to an MBR")
        entries += struct.pack("<B3sB3sII", 0, _LBA_ONLY, _LINUX, _LBA_ONLY, start // SECTOR, size // SECTOR)
    return bytes(440) + struct.pack("<IH", DISK_SIGNATURE, 0) + entries.ljust(64, b"\0") + b"\x55\xaa"


def info_block() -> bytes:
    """Return the kernel's PFN info block (drivers/nvdimm/pfn.h).

    It has no parent and no padding. Data and alignment are at 2 MiB.
    """
    fields = struct.pack(
        "<16s16s16xI2HQQ4I", b"NVDIMM_PFN_INFO", INFO_UUID, 0, *_INFO_VERSION, MEMORY_START, 0, _MODE_RAM, 0, 0, MEMORY_START
    )
    # The checksum covers the whole block, with zeros in its own field.
    block = fields.ljust(INFO_SIZE, b"\0")
    return block[:-8] + struct.pack("<Q", fletcher64(block))


def fletcher64(data: bytes) -> int:
    """Return the checksum of libnvdimm's blocks.

    The low half is the sum of the little-endian 32-bit words, the high half is the sum of the
    running sums.
    """
    low = high = 0
    for (word,) in struct.iter_unpack("<I", data):
        low = (low + word) & 0xFFFFFFFF
        high = (high + low) & 0xFFFFFFFF
    return high << 32 | low
