"""The order of the build steps, the size budgets, and the links in the output folder."""

import os
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from innkeeper import paths, progress
from innkeeper.errors import InnkeeperError
from innkeeper.guest import Artifacts, BootFiles, Variant, additions, lsm_policies, sbom, spdx, uki
from innkeeper.guest.builder import Builder
from innkeeper.guest.config import BudgetsPart, Guest, KernelPart, check
from innkeeper.guest.config_file import read
from innkeeper.guest.derived import Derived, facts, of_root, with_kernel
from innkeeper.guest.derived import outputs as outputs_of
from innkeeper.guest.freeze import AGENT, GATEWAY, PACKAGES, freeze, install_packages
from innkeeper.guest.kernel import SOURCES
from innkeeper.guest.kernel_choice import AUTO, OURS, Kernel, choose, kernel_step, make_kernel
from innkeeper.guest.manifest import make_manifest
from innkeeper.guest.origins import find_origins
from innkeeper.guest.pins import Pins, file_of
from innkeeper.guest.planning import InOrder, PlannedStep, PlanningStore
from innkeeper.guest.rootfs import make_rootfs
from innkeeper.guest.store import JSON, Store
from innkeeper.guest.uki import SigningKey

BUDGETS = {"bzImage": BudgetsPart().kernel, "rootfs.erofs": BudgetsPart().root}
"""The largest size of an artifact, in bytes, unless guest.toml says another.

The kernel has all of the contract built in, and the root contains the agent.
"""


@dataclass(frozen=True)
class _Root:
    """The guest's root file system, the steps that it was made from, and their builders by name."""

    step: Path
    programs: Mapping[str, Path]
    inputs: tuple[Path, ...]
    builders: Mapping[str, Builder]


KERNEL_FILES = ("vmlinux", "bzImage", "Image", "config", "modules.initrd", uki.NAME)
"""Outputs that depend on the choice of the kernel.

Links to those of an earlier choice are removed.
"""


def build_all(output: Path | None, variant: Variant, *, store: Store | None = None, project: Path | None = None) -> Artifacts:
    """Run `innkeeper.guest.build` with a store and a source tree of the caller's choice."""
    outputs = build_guest(Guest(variant=variant), output, store=store, project=project)
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


def of_words(variant: Variant, kernel: str, file: Path | None = None) -> Guest:
    """Return the guest that the command line's words describe, or a guest.toml.

    With a file, its variant counts, and its kernel too if `kernel` is AUTO.
    """
    guest = read([file]) if file else Guest(variant=variant)
    if kernel == AUTO:
        return guest
    part = replace(guest.kernel, use=OURS, source=kernel) if kernel in SOURCES else replace(guest.kernel, use=kernel)
    return check(replace(guest, kernel=part))


def build_guest(
    guest: Guest, output: Path | None, *, store: Store | None = None, project: Path | None = None, key: SigningKey | None = None
) -> dict[str, Path]:
    """Build the outputs that `guest` names.

    Return the files by name. `key` signs the unified kernel image.
    """
    store, project = _places(store, project)
    if _is_kernel_alone(guest):
        outputs = _kernel_alone(store, project, guest)
        return outputs if output is None else link(outputs, output)
    part = _kernel_part(guest, project)
    chosen = choose(_kernel_word(guest), guest.variant, store, project, part)
    with ThreadPoolExecutor() as pool:
        root = _make_root(store, project, guest, pool)
    derived = of_root(store, guest, root.step)
    made = make_kernel(chosen, store, project, part)
    derived = with_kernel(store, guest, derived, made.step, key)
    outputs = outputs_of(guest, made, root.step, derived)
    outputs |= _bills(store, project, guest, root, made, derived)
    ours = {name: path for name, path in outputs.items() if made.facts["from"] == OURS or name not in made.outputs}
    check_budgets({"rootfs.erofs": root.step / "root.erofs", **ours}, show=output is not None, budgets=_budgets(guest))
    outputs["manifest.json"] = _manifest(store, project, guest, root, derived, made, outputs) / "manifest.json"
    return outputs if output is None else link(outputs, output)


def _is_kernel_alone(guest: Guest) -> bool:
    """Return whether no root is made.

    One of another architecture takes long, since its programs are emulated.
    """
    return bool(guest.foreign) and guest.outputs == ("kernel",)


def _kernel_alone(store: Store, project: Path, guest: Guest) -> dict[str, Path]:
    """Build the kernel, and a manifest."""
    made = make_kernel(_kernel_word(guest), store, project, guest.kernel)
    outputs = dict(made.outputs)
    found: dict[str, JSON] = {"kernel": dict(made.facts), "architecture": guest.architecture, "parameters": list(guest.parameters)}
    manifest = make_manifest(store, guest.variant, [made.step], {"kernel": made.packages}, None, outputs, found)
    return {**outputs, "manifest.json": manifest / "manifest.json"}


def _bills(store: Store, project: Path, guest: Guest, root: _Root, made: Kernel, derived: Derived) -> dict[str, Path]:
    """Make the bills of materials that the guest asks for, and return them by name."""
    if not {"sbom", "spdx"} & set(guest.outputs):
        return {}
    origins = find_origins(store, project, guest, root.step, root.programs)
    packages, image = additions.builder(store, guest).package_list(), root.step / "root.erofs"
    bill = sbom.make_sbom(store, origins, made, packages, image, derived.uki, derived.packages.get("uki", ()))
    found = {sbom.NAME: bill / sbom.NAME} if "sbom" in guest.outputs else {}
    if "spdx" in guest.outputs:
        others = {**made.outputs, **({uki.NAME: derived.uki / uki.NAME} if derived.uki else {})}
        found[spdx.NAME] = spdx.make_spdx(store, bill, image, others) / spdx.NAME
    return found


def _manifest(store: Store, project: Path, guest: Guest, root: _Root, derived: Derived, made: Kernel, outputs: dict[str, Path]) -> Path:
    packages = {name: builder.package_list() for name, builder in root.builders.items()}
    return make_manifest(
        store,
        guest.variant,
        [*root.inputs, root.step, *derived.steps, made.step],
        {**packages, **derived.packages, "kernel": made.packages},
        project / "agent" / "requirements.lock",
        outputs,
        facts(guest, derived, made),
    )


def make_boot_files(
    variant: Variant, kernel: str = AUTO, *, store: Store | None = None, project: Path | None = None, file: Path | None = None
) -> BootFiles:
    """Run `innkeeper.guest.boot_files` with a store and a source tree of the caller's choice."""
    store, project = _places(store or Store(paths.store_root(), Pins.read(file_of([file] if file else []))), project)
    guest = of_words(variant, kernel, file)
    part = _kernel_part(guest, project)
    chosen = choose(guest.foreign or guest.kernel.use, guest.variant, store, project, part)
    with ThreadPoolExecutor() as pool:
        making = pool.submit(make_kernel, chosen, store, project, part)
        root = _make_root(store, project, guest, pool)
        made = making.result()
    check_budgets({"rootfs.erofs": root.step / "root.erofs"}, show=False, budgets=_budgets(guest))
    lacks = made.facts.get("lacks", {})
    assert isinstance(lacks, dict)
    return BootFiles(
        kernel=made.image,
        rootfs=root.step / "root.erofs",
        kernel_from=made.description,
        kernel_is_ours=made.facts["from"] == OURS,
        kernel_lacks={symbol: str(reason) for symbol, reason in lacks.items()},
        initrd=made.initrd,
        parameters=(*made.parameters, *guest.parameters),
        machine_type=made.machine_type,
    )


def plan_steps(guest: Guest, plan: PlanningStore, project: Path | None = None) -> list[PlannedStep]:
    """Return the steps that a build of `guest` consists of, without making one.

    `plan` is a store that is new.
    """
    _, project = _places(plan, project)
    if _is_kernel_alone(guest):
        kernel_step(_kernel_word(guest), plan, project, guest.kernel)
        return [*plan.steps, PlannedStep("manifest", None, False)]
    part = _kernel_part(guest, project)
    chosen = choose(_kernel_word(guest), guest.variant, plan, project, part)
    root = _make_root(plan, project, guest, InOrder())
    derived = of_root(plan, guest, root.step)
    kernel = kernel_step(chosen, plan, project, part)
    derived = with_kernel(plan, guest, derived, kernel, None)
    if {"sbom", "spdx"} & set(guest.outputs):
        find_origins(plan, project, guest, root.step, root.programs)
    if all(step.in_store for step in plan.steps if not step.name.startswith("builder")):
        made = make_kernel(chosen, plan, project, part)
        outputs = outputs_of(guest, made, root.step, derived)
        outputs |= _bills(plan, project, guest, root, made, derived)
        _manifest(plan, project, guest, root, derived, made, outputs)
        return plan.steps
    return [*plan.steps, PlannedStep("manifest", None, False)]  # it has facts from the results of the others


def _kernel_word(guest: Guest) -> str:
    """Return the kernel that a build makes.

    AUTO is for `run`, which does not wait for a compiler.
    """
    return guest.foreign or (OURS if guest.kernel.use == AUTO else guest.kernel.use)


def _kernel_part(guest: Guest, project: Path) -> KernelPart:
    """Return the guest's part about its kernel, with the options for firmware if a UKI is made."""
    if "uki" not in guest.outputs:
        return guest.kernel
    firmware = [str(path) for path in sorted((project / "kernel-config" / uki.FRAGMENTS).glob("*.conf"))]
    return replace(guest.kernel, fragments=(*firmware, *guest.kernel.fragments))


def _budgets(guest: Guest) -> dict[str, int]:
    return {"bzImage": guest.budgets.kernel, "rootfs.erofs": guest.budgets.root}


def _places(store: Store | None, project: Path | None) -> tuple[Store, Path]:
    """Return the store and the source tree, by default those of this installation."""
    project = project or paths.project_root()
    if not (project / "agent" / "requirements.lock").exists():
        raise InnkeeperError(f"{project} is not the project's source tree", hint="build in a clone; the installed package has no agent/")
    return store or Store(paths.store_root()), project


def _make_root(store: Store, project: Path, guest: Guest, pool: Executor) -> _Root:
    """Make the root file system. What does not depend on each other is made at the same time.

    A step that several others need is made before these are started: if it failed, each of them
    would try it again. Only the builders' base is made by who needs it first, since with everything
    in the store nobody does.
    """
    builders = {"agent": Builder(PACKAGES, store, architecture=guest.foreign), "policy": Builder(lsm_policies.PACKAGES, store)}
    policies = pool.submit(lsm_policies.compile_policies, builders["policy"], project)
    install_packages(builders["agent"], project)
    beside = Builder(PACKAGES, store, architecture=guest.foreign)
    gateway = pool.submit(freeze, store, beside, project, GATEWAY) if guest.root.gateway else None
    programs = {"agent": freeze(store, builders["agent"], project, AGENT)}
    if gateway is not None:
        programs["gateway"] = gateway.result()
    rootfs = make_rootfs(store, builders["agent"], project, programs, policies.result(), guest.variant)
    inputs = (*programs.values(), policies.result())
    if not guest.is_customised:
        return _Root(rootfs, programs, inputs, builders)
    packages = {"packages": additions.builder(store, guest)} if guest.root.packages else {}
    return _Root(additions.customise(store, guest, rootfs), programs, (*inputs, rootfs), {**builders, **packages})


def check_budgets(outputs: dict[str, Path], *, show: bool, budgets: Mapping[str, int] = BUDGETS) -> None:
    """Raise InnkeeperError if one of `outputs` is over its budget.

    With `show`, print each size beside its budget.
    """
    over = []
    for name, budget in budgets.items():
        if name not in outputs:
            continue
        size = outputs[name].stat().st_size
        if show:
            progress.note(f"{name}: {size / 1e6:.2f} MB of {budget / 1e6:.0f} MB")
        if size > budget:
            over.append(f"{name} has {size} bytes, its budget is {budget}")
    if over:
        raise InnkeeperError("; ".join(over), hint="take something out, or set a larger budget in guest.toml")


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
