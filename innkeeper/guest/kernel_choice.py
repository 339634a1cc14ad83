"""The kernel of a guest: ours, Debian's ready-made one, or a file of the user."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from innkeeper.errors import InnkeeperError
from innkeeper.files import hash_file
from innkeeper.guest import debian_kernel
from innkeeper.guest.config import KernelPart
from innkeeper.guest.kconfig import parse_config
from innkeeper.guest.kernel import CROSS_SOURCES, SOURCES, Source, build_kernel, configure_kernel
from innkeeper.guest.store import JSON, FinishedSteps, NotBuilt, Store

OURS, DEBIAN, AUTO = "ours", "debian", "auto"
"""The words for `--kernel`. AUTO is ours if it is built already, else Debian's.

The name of a kernel source (`kernel.SOURCES`) is a word as well: ours, made from that source.
"""

DEFAULT = KernelPart()


@dataclass(frozen=True)
class Kernel:
    """A kernel, and how a VM has to start it.

    * `outputs`: its files by their names in the output folder
    * `image`: the file that a VM boots
    * `facts`: what the manifest says of it
    * `description`: the same as one line
    * `packages`: the Debian packages that it is made of
    """

    step: Path
    outputs: Mapping[str, Path]
    image: Path
    facts: Mapping[str, JSON]
    description: str
    packages: list[dict[str, str]]
    initrd: Path | None = None
    parameters: tuple[str, ...] = ()
    machine_type: str | None = None


def check_word(text: str) -> str:
    """Return the value of `--kernel`, a file as an absolute path. Raises InnkeeperError."""
    if text in (OURS, DEBIAN, *SOURCES):
        return text
    path = Path(text).absolute()
    if not path.is_file():
        words = f"ours from a source: {', '.join(SOURCES)}"
        raise InnkeeperError(f"--kernel {text}: neither {OURS} nor {DEBIAN}, and there is no such file", hint=words)
    return str(path)


def check_source(name: str, kernel: str) -> str:
    """Return the word for ours from the kernel source `name`.

    Raises InnkeeperError unless `kernel` is OURS.
    """
    if name not in SOURCES:
        raise InnkeeperError(f"--kernel-source {name}: no such kernel source", hint=f"use {' or '.join(SOURCES)}")
    if kernel != OURS:
        raise InnkeeperError(f"--kernel-source {name} cannot be used with --kernel {kernel}", hint="leave one of them out")
    return name


def choose(wanted: str, variant: str, store: Store, project: Path, part: KernelPart = DEFAULT) -> str:
    """Return `wanted`, with AUTO resolved.

    AUTO means OURS if the store has it or the guest needs it, else DEBIAN. Raises InnkeeperError if
    the kernel `wanted` cannot enforce what the variant promises.
    """
    if variant == "selinux" and wanted == DEBIAN:
        reason = "Debian's kernel has a permissive mode of SELinux (CONFIG_SECURITY_SELINUX_DEVELOP)"
        raise InnkeeperError(f"guest variant selinux with kernel {DEBIAN}: {reason}", hint=f"use --kernel {OURS}")
    if wanted != AUTO:
        return wanted
    if variant == "selinux" or part.fragments or part.source != DEFAULT.source:
        return OURS
    try:
        _ours(FinishedSteps(store.root, store.pins), project, part)
    except NotBuilt:
        return DEBIAN
    return OURS


def make_kernel(wanted: str, store: Store, project: Path, part: KernelPart = DEFAULT) -> Kernel:
    """Return a kernel. Build or fetch it unless the store has it. Raises InnkeeperError.

    `part` has the source and further options of ours. The name of another architecture stands for
    ours, made by Debian's cross compiler.
    """
    if wanted in CROSS_SOURCES:
        return _compiled(CROSS_SOURCES[wanted], store, project, part)
    if wanted in SOURCES:
        part = replace(part, source=wanted)
    if wanted == OURS or wanted in SOURCES:
        return _ours(store, project, part)
    return _debian(store, project) if wanted == DEBIAN else _file(store, Path(wanted))


def kernel_step(wanted: str, store: Store, project: Path, part: KernelPart) -> Path:
    """Return the step's folder of a kernel that `choose` returned.

    On a store that plans nothing is made.
    """
    if wanted == DEBIAN:
        return debian_kernel.debian_kernel(store, fragments=project / "kernel-config")
    return make_kernel(wanted, store, project, part).step


def config_changes(architecture: str, part: KernelPart, store: Store, project: Path) -> dict[str, tuple[str, str]]:
    """Return what `part.fragments` change in the final configuration.

    It maps a symbol to its value without and with them. A value of "n" is a symbol that is off.
    Nothing is compiled. Raises InnkeeperError.
    """
    source, folder = CROSS_SOURCES.get(architecture, SOURCES[part.source]), project / "kernel-config"
    steps = [configure_kernel(source, store, folder, extra) for extra in ((), [Path(path) for path in part.fragments])]
    before, after = (parse_config((step / "config").read_text()) for step in steps)
    names = sorted(before.keys() | after.keys())
    return {name: (before.get(name, "n"), after.get(name, "n")) for name in names if before.get(name) != after.get(name)}


def _ours(store: Store, project: Path, part: KernelPart) -> Kernel:
    return _compiled(SOURCES[part.source], store, project, part)


def _compiled(source: Source, store: Store, project: Path, part: KernelPart) -> Kernel:
    step = build_kernel(source, store, project / "kernel-config", [Path(path) for path in part.fragments])
    builder = source.builder(store)
    package = f"{source.package} {builder.version_of(source.package)}"
    return Kernel(
        step=step,
        outputs={name: step / name for name in source.files},
        image=step / source.files[0 if source.target.boots_elf else 1],
        facts={"from": OURS, "version": source.version, "source": package},
        description=f"{OURS} ({package})",
        packages=builder.package_list(),
        machine_type=source.target.machine_type,
    )


def _debian(store: Store, project: Path) -> Kernel:
    step = debian_kernel.debian_kernel(store, fragments=project / "kernel-config")
    known: dict[str, Any] = dict(debian_kernel.facts(step))
    return Kernel(
        step=step,
        outputs={"bzImage": step / "vmlinuz", "modules.initrd": step / "modules.initrd", "config": step / "config"},
        image=step / "vmlinuz",
        facts={"from": DEBIAN, "version": known["version"], "lacks": known["lacks"], "parameters": list(debian_kernel.parameters())},
        description=f"{DEBIAN} {known['version']}",
        packages=known["packages"],
        initrd=step / "modules.initrd",
        parameters=debian_kernel.parameters(),
        # It announces no virtio-mmio device without ACPI (CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES).
        machine_type="q35",
    )


def _file(store: Store, path: Path) -> Kernel:
    """Copy the file into the store, so that a VM does not depend on what becomes of it."""
    digest = hash_file(path)

    def make(out: Path) -> None:
        shutil.copyfile(path, out / "bzImage")

    step = store.step("kernel-file", {"sha256": digest}, make)
    return Kernel(
        step=step,
        outputs={"bzImage": step / "bzImage"},
        image=step / "bzImage",
        facts={"from": "file", "sha256": digest},
        description=str(path),
        packages=[],
        machine_type="q35",
    )
