"""The build pipeline: from the source tree to a kernel, a root file system, a disk, an initrd and the manifest of what they were made of.

    artifacts = build(output=Path("out"))

Importing this package costs nothing; what a step needs is imported when it is not in the store yet.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Variant: TypeAlias = Literal["release", "debug", "selinux"]
"""Of the guest's root: `debug` has a shell; `selinux` has SELinux's policy and is booted with it in AppArmor's place."""


@dataclass(frozen=True)
class Artifacts:
    """What a build left, as paths in the store (or in the output folder, if one was given)."""

    vmlinux: Path
    bzImage: Path
    config: Path
    rootfs: Path
    disk: Path
    initrd: Path
    verity: Path
    manifest: Path


def build(output: Path | None = None, variant: Variant = "release") -> Artifacts:
    """Build all that is not in the store yet. With `output`, links to the results are left there under their plain names.

    Raises InnkeeperError: a step failed, a host program is missing, or an artifact is over its size budget.
    """
    from innkeeper.guest.pipeline import build_all

    return build_all(output, variant)
