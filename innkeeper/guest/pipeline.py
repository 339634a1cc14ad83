"""The order of the build steps, the size budgets, and the links in the output folder."""

import json
import secrets
from pathlib import Path

from innkeeper import paths, progress
from innkeeper.errors import InnkeeperError
from innkeeper.guest import Artifacts, Variant, kernel, policy
from innkeeper.guest.builder import Builder
from innkeeper.guest.disk import make_disk
from innkeeper.guest.freeze import AGENT, GATEWAY, PACKAGES, freeze
from innkeeper.guest.manifest import make_manifest
from innkeeper.guest.rootfs import make_initrd, make_rootfs
from innkeeper.guest.store import Store
from innkeeper.guest.verity import make_verity

IMAGE_PACKAGES = ["cpio", "cryptsetup-bin", "erofs-utils", "lz4"]
"""Packages of the builder that converts a finished root to its other formats."""

BUDGETS = {"bzImage": 6_000_000, "rootfs.erofs": 25_000_000}
"""The largest size of an artifact, in bytes.

The kernel has all of the contract built in, and the root contains the agent.
"""


def build_all(output: Path | None, variant: Variant, *, store: Store | None = None, project: Path | None = None) -> Artifacts:
    """Run `innkeeper.guest.build` with a store and a source tree of the caller's choice."""
    store = store or Store(paths.store_root())
    project = project or paths.project_root()
    if not (project / "agent" / "requirements.lock").exists():
        raise InnkeeperError(f"{project} is not the project's source tree", hint="build in a clone; the installed package has no agent/")
    packages = {"agent": PACKAGES, "policy": policy.PACKAGES, "image": IMAGE_PACKAGES, "kernel": kernel.PACKAGES}
    builders: dict[str, Builder] = {name: Builder(wanted, store) for name, wanted in packages.items()}

    agent = freeze(store, builders["agent"], project, AGENT)
    gateway = freeze(store, builders["agent"], project, GATEWAY)
    policies = policy.compile_policies(builders["policy"], project)
    rootfs = make_rootfs(store, builders["agent"], project, {"agent": agent, "gateway": gateway}, policies, variant)
    verity = make_verity(builders["image"], rootfs)
    disk = make_disk(store, rootfs, verity)
    initrd = make_initrd(builders["image"], rootfs)
    built = kernel.build_kernel(builders["kernel"], project / "kernel-config")
    outputs = {
        "vmlinux": built / "vmlinux",
        "bzImage": built / "bzImage",
        "config": built / "config",
        "rootfs.erofs": rootfs / "root.erofs",
        "innkeeper.img": disk / "innkeeper.img",
        "innkeeper.initrd": initrd / "innkeeper.initrd",
        "verity.toml": verity / "verity.toml",
    }
    check_budgets(outputs, show=output is not None)
    manifest = make_manifest(
        store,
        variant,
        [agent, gateway, policies, rootfs, verity, disk, initrd, built],
        {name: builder.package_list() for name, builder in builders.items()},
        project / "agent" / "requirements.lock",
        outputs,
        json.loads((verity / "verity.json").read_text()),
    )
    outputs["manifest.json"] = manifest / "manifest.json"
    if output is not None:
        outputs = link(outputs, output)
    return Artifacts(
        vmlinux=outputs["vmlinux"],
        bzImage=outputs["bzImage"],
        config=outputs["config"],
        rootfs=outputs["rootfs.erofs"],
        disk=outputs["innkeeper.img"],
        initrd=outputs["innkeeper.initrd"],
        verity=outputs["verity.toml"],
        manifest=outputs["manifest.json"],
    )


def check_budgets(outputs: dict[str, Path], *, show: bool) -> None:
    """Raise InnkeeperError if an artifact is over its budget.

    With `show`, print each size beside its budget.
    """
    over = []
    for name, budget in BUDGETS.items():
        size = outputs[name].stat().st_size
        if show:
            progress.note(f"{name}: {size / 1e6:.2f} MB of {budget / 1e6:.0f} MB")
        if size > budget:
            over.append(f"{name} has {size} bytes, its budget is {budget}")
    if over:
        raise InnkeeperError("; ".join(over), hint="take something out, or argue for a larger budget in innkeeper/guest/pipeline.py")


def link(outputs: dict[str, Path], folder: Path) -> dict[str, Path]:
    """Create links to `outputs` in `folder` and return their paths by name.

    Each link is replaced atomically, so that a reader sees the old file or the new one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    links = {}
    for name, path in outputs.items():
        fresh = folder / f".{name}.{secrets.token_hex(4)}"
        fresh.symlink_to(path.absolute())
        fresh.replace(folder / name)
        links[name] = folder / name
    return links
