"""Make hash tree, disk, initrd and unified kernel image of a finished root and kernel."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from innkeeper.files import hash_file
from innkeeper.guest import LSM_PARAMETERS, uki
from innkeeper.guest.builder import Builder
from innkeeper.guest.config import Guest
from innkeeper.guest.disk import make_disk
from innkeeper.guest.kernel_choice import Kernel
from innkeeper.guest.manifest import Packages
from innkeeper.guest.rootfs import make_initrd
from innkeeper.guest.store import JSON, Store
from innkeeper.guest.uki import SigningKey
from innkeeper.guest.verity import make_verity

IMAGE_PACKAGES = ["cpio", "cryptsetup-bin", "erofs-utils", "lz4"]
"""Packages of the builder that converts a finished root to its other formats."""


@dataclass(frozen=True)
class Derived:
    """The steps' folders.

    Each is None if no output needs it. `key` is what the unified kernel image is signed with.
    """

    builders: Mapping[str, Builder]
    verity: Path | None
    disk: Path | None
    initrd: Path | None
    uki: Path | None = None
    key: SigningKey | None = None

    @property
    def steps(self) -> list[Path]:
        return [step for step in (self.verity, self.disk, self.initrd, self.uki) if step is not None]

    @property
    def packages(self) -> dict[str, Packages]:
        """Return the Debian packages of each builder."""
        return {name: builder.package_list() for name, builder in self.builders.items()}


def of_root(store: Store, guest: Guest, root: Path) -> Derived:
    """Make what needs the root alone, the step `root`."""
    image = Builder(IMAGE_PACKAGES, store)
    verity = make_verity(image, root) if {"verity", "disk"} & set(guest.outputs) else None
    disk = make_disk(store, root, verity) if verity and "disk" in guest.outputs else None
    return Derived({"image": image}, verity, disk, make_initrd(image, root) if "initrd" in guest.outputs else None)


def with_kernel(store: Store, guest: Guest, derived: Derived, kernel: Path, key: SigningKey | None) -> Derived:
    """Return `derived` with what needs the kernel too, whose step is `kernel`."""
    if "uki" not in guest.outputs or derived.verity is None:
        return derived
    builders = {**derived.builders, "uki": uki.builder(store)}
    return replace(derived, builders=builders, key=key, uki=uki.make_uki(store, kernel, derived.verity, uki_parameters(guest), key))


def uki_parameters(guest: Guest) -> tuple[str, ...]:
    """Return the guest's words for the command line that is in the unified kernel image."""
    return (*LSM_PARAMETERS.get(guest.variant, ()), *guest.parameters)


def outputs(guest: Guest, made: Kernel, root: Path, derived: Derived) -> dict[str, Path]:
    """Return the files that the guest asks for, by their names in the output folder."""
    found = dict(made.outputs) if "kernel" in guest.outputs else {}
    if "root" in guest.outputs:
        found["rootfs.erofs"] = root / "root.erofs"
    if derived.disk:
        found["innkeeper.img"] = derived.disk / "innkeeper.img"
    if derived.initrd:
        found["innkeeper.initrd"] = derived.initrd / "innkeeper.initrd"
    if derived.verity and "verity" in guest.outputs:
        found["verity.toml"] = derived.verity / "verity.toml"
    if derived.uki:
        found[uki.NAME] = derived.uki / uki.NAME
    return found


def facts(guest: Guest, derived: Derived, made: Kernel) -> dict[str, JSON]:
    """Return what the manifest says beside steps, inputs and outputs."""
    found: dict[str, JSON] = {"kernel": dict(made.facts)}
    if guest.foreign:
        found["architecture"] = guest.architecture
    if derived.verity:
        found["verity"] = json.loads((derived.verity / "verity.json").read_text())
    if derived.uki:
        hashed = json.loads((derived.verity / "verity.json").read_text()) if derived.verity else {}
        found["uki"] = {
            "command_line": uki.command_line(hashed, uki_parameters(guest)),
            "certificate": hash_file(derived.key.certificate) if derived.key else None,
        }
    return {**found, "parameters": list(guest.parameters)} if guest.parameters else found
