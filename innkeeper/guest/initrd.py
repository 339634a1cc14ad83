"""The root file system as an initrd, for VMs without a disk.

It is unpacked from the same erofs image, so that both boot the same root. Of the compressions that
the kernel knows (`kernel-config/base.conf`), an emulated processor unpacks lz4 soonest.
"""

from pathlib import Path

from innkeeper import progress
from innkeeper.guest.builder import SOURCE_DATE_EPOCH, Builder
from innkeeper.guest.store import JSON, Store

# The kernel starts /init from an initrd, but /sbin/init from a disk.
_PACK = f"""
set -eu
fsck.erofs --extract=/tmp/root --preserve /rootfs/root.erofs
cd /tmp/root
ln -s usr/sbin/init init
touch -h -d @{SOURCE_DATE_EPOCH} init .
find . -print0 | LC_ALL=C sort -z | cpio --quiet --null --create --format newc --reproducible --owner 0:0 >/tmp/root.cpio
lz4 -q -l -9 -f /tmp/root.cpio /out/innkeeper.initrd
"""


def make_initrd(store: Store, builder: Builder, rootfs: Path) -> Path:
    """Repack `root.erofs` of the step `rootfs` and return the folder with `innkeeper.initrd`."""
    inputs: dict[str, JSON] = {"builder": builder.id, "rootfs": rootfs.name, "script": _PACK}

    def make(out: Path) -> None:
        with progress.step("packing the initrd"), builder:
            builder.run(["sh", "-c", _PACK], mounts={rootfs: "/rootfs:ro", out: "/out"}, log=store.log_of(out))

    return store.step("initrd", inputs, make)
