"""The dm-verity hash tree of the root file system, made by veritysetup.

A guest that boots with the root hash reads the root exactly as it was built, or gets an error. The
tree has no superblock, because the shim passes the same parameters to the kernel. Hence there is no
UUID to fix either.
"""

import json
from pathlib import Path

from innkeeper.guest.builder import Builder
from innkeeper.guest.store import JSON

BLOCK = 4096
SALT = "696e6e6b6565706572207265616420616e642076657269667920626c6f636b73"
"""The salt. Fixed, because a random salt would change every image.

It need not be secret: what is hashed is public.
"""

_FORMAT = f"""
set -eu
veritysetup format --no-superblock --hash sha256 --salt {SALT} --data-block-size {BLOCK} --hash-block-size {BLOCK} \\
    --root-hash-file /out/root_hash /rootfs/root.erofs /out/tree
"""


def make_verity(builder: Builder, rootfs: Path) -> Path:
    """Make the hash tree of `root.erofs` of the step `rootfs` and return the step's folder.

    It contains `tree`, `verity.json`, and `verity.toml` for operators.
    """

    def finish(out: Path) -> None:
        hashed = parameters((out / "root_hash").read_text().strip(), (rootfs / "root.erofs").stat().st_size)
        (out / "root_hash").unlink()
        (out / "verity.json").write_text(json.dumps(hashed, indent=1) + "\n")
        (out / "verity.toml").write_text(shim_line(hashed) + "\n")

    title = "making the root's hash tree"
    return builder.step("verity", title, _FORMAT, {"rootfs": rootfs.name}, {rootfs: "/rootfs:ro"}, finish=finish)


def parameters(root_hash: str, size: int) -> dict[str, JSON]:
    """Return the parameters of the tree over `size` bytes, by the shim's names.

    A reader needs them because the tree has no superblock.
    """
    return {
        "root_hash": root_hash,
        "salt": SALT,
        "data_blocks": size // BLOCK,
        "data_block_size": BLOCK,
        "hash_block_size": BLOCK,
    }


def shim_line(hashed: dict[str, JSON]) -> str:
    """Return the parameters as a line for `[hypervisor.*]` of the shim's configuration."""
    return f'kernel_verity_params = "{",".join(f"{name}={value}" for name, value in hashed.items())}"'
