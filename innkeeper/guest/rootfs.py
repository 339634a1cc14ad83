"""The guest's root file system: skeleton, frozen agent and their libraries.

It is an erofs image, and an initrd unpacked from that image, so that both boot the same root. See
rootfs/README.md.
"""

from collections.abc import Mapping
from pathlib import Path

from innkeeper import progress
from innkeeper.files import hash_file
from innkeeper.guest.builder import SOURCE_DATE_EPOCH, Builder
from innkeeper.guest.freeze import BUILDER_SCRIPTS
from innkeeper.guest.store import JSON, Store, hash_tree

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


def make_rootfs(store: Store, builder: Builder, project: Path, programs: Mapping[str, Path], policies: Path, variant: str) -> Path:
    """Assemble the root file system and return the step's folder.

    `programs` maps names to the folders that `freeze` returned; the root may be without the
    gateway. The folder contains `root.erofs`, and `files.json` with the size of each file.
    """
    data = project / "rootfs"
    inputs: dict[str, JSON] = {
        "builder": builder.id,
        "programs": {name: step.name for name, step in programs.items()},
        "policies": policies.name,
        "rootfs": hash_tree(data, ["layout", "init.c", "skeleton/**/*"]),
        "script": hash_file(BUILDER_SCRIPTS / "assemble.py"),
        "epoch": SOURCE_DATE_EPOCH,
        "variant": variant,
    }

    def make(out: Path) -> None:
        with progress.step(f"assembling the root file system ({variant})"), builder:
            frozen = {step / name: f"/{name}:ro" for name, step in programs.items()}
            if "gateway" not in programs:
                builder.run(["mkdir", "-p", "/gateway"])  # the script looks for files there, and finds none
            mounts = {data: "/rootfs:ro", **frozen, policies: "/policies:ro", BUILDER_SCRIPTS: "/inside:ro", out: "/out"}
            builder.run(["python3", "-I", "/inside/assemble.py", variant], mounts=mounts, log=store.log_of(out))

    return store.step("rootfs", inputs, make)


def make_initrd(builder: Builder, rootfs: Path) -> Path:
    """Repack `root.erofs` of the step `rootfs` as an initrd, for VMs without a disk.

    Returns the folder with `innkeeper.initrd`. Of the compressions that the kernel knows
    (`kernel-config/base.conf`), an emulated processor unpacks lz4 soonest.
    """
    return builder.step("initrd", "packing the initrd", _PACK, {"rootfs": rootfs.name}, {rootfs: "/rootfs:ro"})
