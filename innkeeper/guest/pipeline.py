"""The order of the build steps, the size budgets, and the links in the output folder."""

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from innkeeper import paths, progress
from innkeeper.errors import InnkeeperError
from innkeeper.guest import Artifacts, BootFiles, Variant, lsm_policies
from innkeeper.guest.builder import Builder
from innkeeper.guest.disk import make_disk
from innkeeper.guest.freeze import AGENT, GATEWAY, PACKAGES, freeze, install_packages
from innkeeper.guest.kernel_choice import AUTO, OURS, choose, make_kernel
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


@dataclass(frozen=True)
class _Root:
    """The guest's root file system, the steps that it was made from, and their builders by name."""

    step: Path
    inputs: tuple[Path, ...]
    builders: Mapping[str, Builder]


KERNEL_FILES = ("vmlinux", "bzImage", "config", "modules.initrd")
"""Outputs that depend on the choice of the kernel: links to those of an earlier choice are removed."""


def build_all(output: Path | None, variant: Variant, *, store: Store | None = None, project: Path | None = None) -> Artifacts:
    """Run `innkeeper.guest.build` with a store and a source tree of the caller's choice."""
    outputs = build_outputs(output, variant, OURS, store=store, project=project)
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


def build_outputs(
    output: Path | None, variant: Variant, kernel: str, *, store: Store | None = None, project: Path | None = None
) -> dict[str, Path]:
    """Build everything, with `kernel` as in `innkeeper.guest.boot_files`. Return the files by name."""
    store, project = _places(store, project)
    chosen = choose(kernel, variant, store, project)
    with ThreadPoolExecutor() as pool:
        root = _make_root(store, project, variant, pool)
    image = Builder(IMAGE_PACKAGES, store)
    verity = make_verity(image, root.step)
    disk = make_disk(store, root.step, verity)
    initrd = make_initrd(image, root.step)
    made = make_kernel(chosen, store, project)
    outputs = {
        **made.outputs,
        "rootfs.erofs": root.step / "root.erofs",
        "innkeeper.img": disk / "innkeeper.img",
        "innkeeper.initrd": initrd / "innkeeper.initrd",
        "verity.toml": verity / "verity.toml",
    }
    ours = {name: path for name, path in outputs.items() if made.facts["from"] == OURS or name not in made.outputs}
    check_budgets(ours, show=output is not None)
    packages = {name: builder.package_list() for name, builder in {**root.builders, "image": image}.items()}
    manifest = make_manifest(
        store,
        variant,
        [*root.inputs, root.step, verity, disk, initrd, made.step],
        {**packages, "kernel": made.packages},
        project / "agent" / "requirements.lock",
        outputs,
        {"verity": json.loads((verity / "verity.json").read_text()), "kernel": dict(made.facts)},
    )
    outputs["manifest.json"] = manifest / "manifest.json"
    return outputs if output is None else link(outputs, output)


def make_boot_files(variant: Variant, kernel: str = AUTO, *, store: Store | None = None, project: Path | None = None) -> BootFiles:
    """Run `innkeeper.guest.boot_files` with a store and a source tree of the caller's choice."""
    store, project = _places(store, project)
    chosen = choose(kernel, variant, store, project)
    with ThreadPoolExecutor() as pool:
        Builder([], store).id  # noqa: B018 - made before the threads, which would wait for each other
        making = pool.submit(make_kernel, chosen, store, project)
        root = _make_root(store, project, variant, pool)
        made = making.result()
    lacks = made.facts.get("lacks", {})
    assert isinstance(lacks, dict)
    return BootFiles(
        kernel=made.image,
        rootfs=root.step / "root.erofs",
        kernel_from=made.description,
        kernel_is_ours=made.facts["from"] == OURS,
        kernel_lacks={symbol: str(reason) for symbol, reason in lacks.items()},
        initrd=made.initrd,
        parameters=made.parameters,
        machine_type=made.machine_type,
    )


def _places(store: Store | None, project: Path | None) -> tuple[Store, Path]:
    """Return the store and the source tree, by default those of this installation."""
    project = project or paths.project_root()
    if not (project / "agent" / "requirements.lock").exists():
        raise InnkeeperError(f"{project} is not the project's source tree", hint="build in a clone; the installed package has no agent/")
    return store or Store(paths.store_root()), project


def _make_root(store: Store, project: Path, variant: Variant, pool: ThreadPoolExecutor) -> _Root:
    """Make the root file system. What does not depend on each other is made at the same time.

    A step that several others need is made before these are started: if it failed, each of them
    would try it again.
    """
    builders = {"agent": Builder(PACKAGES, store), "policy": Builder(lsm_policies.PACKAGES, store)}
    Builder([], store).id  # noqa: B018 - the base of both
    policies = pool.submit(lsm_policies.compile_policies, builders["policy"], project)
    install_packages(builders["agent"], project)
    gateway = pool.submit(freeze, store, Builder(PACKAGES, store), project, GATEWAY)
    programs = {"agent": freeze(store, builders["agent"], project, AGENT), "gateway": gateway.result()}
    rootfs = make_rootfs(store, builders["agent"], project, programs, policies.result(), variant)
    return _Root(rootfs, (*programs.values(), policies.result()), builders)


def check_budgets(outputs: dict[str, Path], *, show: bool) -> None:
    """Raise InnkeeperError if one of `outputs` is over its budget.

    With `show`, print each size beside its budget.
    """
    over = []
    for name, budget in BUDGETS.items():
        if name not in outputs:
            continue
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
    for name in KERNEL_FILES:
        if name not in outputs and (folder / name).is_symlink():
            (folder / name).unlink()
    links = {}
    for name, path in outputs.items():
        fresh = folder / f".{name}.{os.urandom(4).hex()}"
        fresh.symlink_to(path.absolute())
        fresh.replace(folder / name)
        links[name] = folder / name
    return links
