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

LSM_PARAMETERS: dict[str, tuple[str, ...]] = {"selinux": ("lsm=landlock,selinux",)}
"""The kernel parameters that a variant adds.

The kernel's default is AppArmor (kernel-config/security.conf).
"""

REGISTRY_PREFIX = "oci:"
"""What a reference to a guest in a registry begins with, where a guest.toml could be named too."""


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


@dataclass(frozen=True)
class BootFiles:
    """What a VM boots, and what it needs for that.

    `kernel_from` says which kernel it is, `kernel_is_ours` whether it was built here.
    `kernel_lacks` has the symbols that it lacks of the guest's contract (Debian's kernel only),
    with the reason for each.
    """

    kernel: Path
    rootfs: Path
    kernel_from: str
    kernel_lacks: dict[str, str]
    initrd: Path | None = None
    parameters: tuple[str, ...] = ()
    machine_type: str | None = None
    kernel_is_ours: bool = False


def boot_files(variant: Variant = "release", kernel: str = "auto", file: Path | None = None) -> BootFiles:
    """Return a guest for a VM. Build or fetch what is not in the store yet.

    `kernel` is "ours", "debian", the name of a kernel source, the path of a kernel with everything
    built in, or "auto": ours if it is built already, else Debian's, which needs no compiler. `file`
    is a guest.toml that describes the guest in place of `variant`, or names one in a registry
    (`oci:NAME@sha256:...`). Raises InnkeeperError.
    """
    if file is not None and is_reference(file):
        from innkeeper.errors import InnkeeperError
        from innkeeper.guest import published

        if kernel != "auto":
            raise InnkeeperError(
                f"--kernel {kernel} cannot be used with a guest in a registry: it has its own", hint="leave one of them out"
            )
        return published.boot_files(str(file))
    if file is not None or "/" in kernel:
        from innkeeper.guest.pipeline import make_boot_files

        return make_boot_files(variant, kernel, file=file)
    return _recorded_boot_files(variant, kernel)


def _recorded_boot_files(variant: Variant, kernel: str) -> BootFiles:
    """Return what the last call returned, if no input of the build has changed since."""
    from innkeeper.guest import boot_record

    try:
        before = boot_record.state()
    except OSError:
        before = ""  # no source tree, which the pipeline says
    if before and (known := boot_record.recall(variant, kernel, before)) is not None:
        return known
    from innkeeper.guest.pipeline import make_boot_files

    found = make_boot_files(variant, kernel)
    try:
        if before:
            boot_record.keep(variant, kernel, before, found)
    except OSError:
        pass  # a cache that cannot be written to: the next run looks again
    return found


def is_reference(file: Path) -> bool:
    """Return whether what was given as a guest.toml names a guest in a registry."""
    return str(file).startswith(REGISTRY_PREFIX)


def variant_of(file: Path) -> Variant:
    """Return the variant of the guest that a guest.toml describes. Raises InnkeeperError."""
    from innkeeper.guest import published
    from innkeeper.guest.config_file import read

    variant = published.variant(str(file)) if is_reference(file) else read([file]).variant
    return "debug" if variant == "debug" else "selinux" if variant == "selinux" else "release"


def architecture_of(file: Path | None) -> str:
    """Return the architecture that a guest.toml describes, or "" if it is this host's.

    Raises InnkeeperError.
    """
    if file is None:
        return ""
    from innkeeper.guest import published
    from innkeeper.guest.config_file import read

    return published.architecture(str(file)) if is_reference(file) else read([file]).foreign


def installable(reference: str = "") -> Artifacts:
    """Return a guest for an installation.

    It is one in a registry (`oci:NAME@sha256:...`), or the default one, which is built if needed.
    """
    from innkeeper.guest import published

    return published.artifacts(reference) if reference else build()


def build(output: Path | None = None, variant: Variant = "release") -> Artifacts:
    """Build everything that is not in the store yet.

    With `output`, links to the results are written to that folder under their plain names. Raises
    InnkeeperError if a step fails, a host program is missing, or an artifact is over its size
    budget.
    """
    from innkeeper.guest.pipeline import build_all

    return build_all(output, variant)
