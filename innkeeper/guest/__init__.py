"""The build pipeline: from the source tree to a kernel, a root file system, a disk and an initrd.

Each build also writes a manifest of all that the outputs were made of.

    artifacts = build(output=Path("out"))

Importing this package is cheap: the modules of a step are imported only when a build runs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Variant: TypeAlias = Literal["release", "debug", "selinux"]
"""A variant of the guest's root file system.

`debug` adds a shell. `selinux` adds an SELinux policy and boots with SELinux instead of AppArmor.
"""


@dataclass(frozen=True)
class Artifacts:
    """The files that a build produced.

    They are paths in the store, or in the output folder if one was given.
    """

    vmlinux: Path
    bzImage: Path
    config: Path
    rootfs: Path
    disk: Path
    initrd: Path
    verity: Path
    manifest: Path


def build(output: Path | None = None, variant: Variant = "release") -> Artifacts:
    """Build everything that is not in the store yet.

    With `output`, links to the results are written to that folder under their plain names. Raises
    InnkeeperError if a step fails, a host program is missing, or an artifact is over its size
    budget.
    """
    from innkeeper.guest.pipeline import build_all

    return build_all(output, variant)
