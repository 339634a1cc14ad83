"""The dm-verity hash tree of the root file system, by veritysetup: whoever boots with its root hash reads the root as built, or fails.

The tree has no superblock, because the shim's kernel parameters say what a superblock would; so there is no UUID to fix either.
"""

import json
from pathlib import Path

from innkeeper import progress
from innkeeper.guest.builder import Builder
from innkeeper.guest.store import JSON, Store

BLOCK = 4096
SALT = "696e6e6b6565706572207265616420616e642076657269667920626c6f636b73"
"""Fixed: a random one would change every image. It is no secret, and what is hashed is public."""

_FORMAT = f"""
set -eu
veritysetup format --no-superblock --hash sha256 --salt {SALT} --data-block-size {BLOCK} --hash-block-size {BLOCK} \\
    --root-hash-file /out/root_hash /rootfs/root.erofs /out/tree
"""


def make_verity(store: Store, builder: Builder, rootfs: Path) -> Path:
    """The step that made the hash tree of `root.erofs` of the step `rootfs`: `tree`, `verity.json`, and for operators `verity.toml`."""
    inputs: dict[str, JSON] = {"builder": builder.id, "rootfs": rootfs.name, "script": _FORMAT}

    def make(out: Path) -> None:
        with progress.step("making the root's hash tree"), builder:
            builder.run(["sh", "-c", _FORMAT], mounts={rootfs: "/rootfs:ro", out: "/out"}, log=store.log_of(out))
        hashed = parameters((out / "root_hash").read_text().strip(), (rootfs / "root.erofs").stat().st_size)
        (out / "root_hash").unlink()
        (out / "verity.json").write_text(json.dumps(hashed, indent=1) + "\n")
        (out / "verity.toml").write_text(shim_line(hashed) + "\n")

    return store.step("verity", inputs, make)


def parameters(root_hash: str, size: int) -> dict[str, JSON]:
    """What a reader must know of the tree over `size` bytes, by the names that the shim has for it."""
    return {
        "root_hash": root_hash,
        "salt": SALT,
        "data_blocks": size // BLOCK,
        "data_block_size": BLOCK,
        "hash_block_size": BLOCK,
    }


def shim_line(hashed: dict[str, JSON]) -> str:
    """The same as a line for `[hypervisor.*]` of the shim's configuration."""
    return f'kernel_verity_params = "{",".join(f"{name}={value}" for name, value in hashed.items())}"'
