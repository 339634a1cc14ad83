"""Debian's own kernel for the guest, ready-made: nothing is compiled.

    kernel = debian_kernel(store)       # the folder <store>/debian-kernel-ID

The folder has vmlinuz, modules.initrd, config and kernel.json.

The package is the one of the lock file, or without one that of the mirror's signed index. The
drivers and file systems of this kernel are modules, so it starts from an initrd that holds those of
the guest's contract (`kernel-config/debian-modules`) and busybox.
"""

import json
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from innkeeper import paths, progress
from innkeeper.errors import InnkeeperError
from innkeeper.guest import archives, cpio, kconfig, kernel_modules
from innkeeper.guest.builder import SUITE, packages_of
from innkeeper.guest.kernel import VERSION
from innkeeper.guest.kernel_modules import ModuleFolder, Wanted
from innkeeper.guest.pins import Request, digest
from innkeeper.guest.store import JSON, Store, hash_tree

PACKAGES = {"x86_64": "linux-image-cloud-amd64", "aarch64": "linux-image-cloud-arm64"}
"""The package by architecture. Debian's cloud kernel has virtio's drivers and few others."""
INITRD_SCRIPTS = Path(__file__).parent / "builder_scripts" / "debian_kernel"
"""Scripts for the initrd: its /init, and the program that the kernel starts to load a module."""

PARAMETERS = {
    "LSM": "lsm=landlock,apparmor",
    "PANIC_ON_OOPS": "oops=panic",
    "TRANSPARENT_HUGEPAGE_MADVISE": "transparent_hugepage=madvise",
    "PREEMPT_NONE": "preempt=none",
}
"""Kernel parameters that stand in for a symbol which Debian sets differently."""
OPTIONS = {
    "overlay": {
        "OVERLAY_FS_REDIRECT_DIR": "redirect_dir=on",
        "OVERLAY_FS_INDEX": "index=on",
        "OVERLAY_FS_XINO_AUTO": "xino_auto=on",
        "OVERLAY_FS_METACOPY": "metacopy=on",
    }
}
"""The same for modules: options by module and symbol."""
_BY_AGENT = ("DEVTMPFS_MOUNT",)
"""Symbols in whose place the agent does something."""


def debian_kernel(store: Store, *, fragments: Path | None = None) -> Path:
    """Fetch Debian's kernel unless the store has it, and return the step's folder.

    `kernel.json` has its `version`, its `packages` and what it `lacks` of the contract. `fragments`
    is `kernel-config` of the source tree by default. Raises InnkeeperError.
    """
    architecture = platform.machine()
    if architecture not in PACKAGES:
        raise InnkeeperError(f"no kernel of Debian for architecture {architecture}", hint=f"known: {', '.join(PACKAGES)}")
    folder = fragments or paths.project_root() / "kernel-config"
    settings = kconfig.read_fragments(folder, architecture, kconfig.parse_version(VERSION))
    table = (folder / "debian-modules").read_text()
    inputs: dict[str, JSON] = {
        "suite": SUITE,
        "package": PACKAGES[architecture],
        "pins": digest(pinned) if (pinned := store.pins.of(request(architecture))) is not None else None,
        "initrd": hash_tree(INITRD_SCRIPTS),
        "modules": table,
        "fragments": kconfig.as_config(settings),
        "options": {name: list(options.values()) for name, options in OPTIONS.items()},
    }

    def make(out: Path) -> None:
        with progress.step(f"fetching Debian's kernel ({PACKAGES[architecture]})"):
            packages = _fetch(store, request(architecture), out)
            _pack(out, packages, settings, kernel_modules.read_table(table))

    return store.step("debian-kernel", inputs, make)


def facts(kernel: Path) -> dict[str, JSON]:
    """Return what `kernel.json` of the step's folder contains."""
    document: dict[str, JSON] = json.loads((kernel / "kernel.json").read_text())
    return document


def parameters() -> tuple[str, ...]:
    """Return the kernel parameters that this kernel needs beside those of our own."""
    return tuple(PARAMETERS.values())


def lacks(settings: Mapping[str, kconfig.Setting], config: Mapping[str, str], table: Sequence[Wanted]) -> dict[str, str]:
    """Return what the kernel lacks of the contract: symbols with the fragments' reason for them.

    A module that the table does not list cannot be loaded, and counts as lacking.
    """
    covered = {*PARAMETERS, *_BY_AGENT, *(symbol for options in OPTIONS.values() for symbol in options)}
    covered |= {wanted.symbol for wanted in table if config.get(wanted.symbol) == "m"}
    lost = kconfig.lost(settings, config)
    return {
        fault.setting.symbol: fault.setting.reason
        for fault in lost
        if fault.setting.value == "y" and fault.setting.symbol not in covered and fault.setting.reason.startswith("contract")
    }


def request(architecture: str = "x86_64") -> Request:
    """Return what is asked of Debian: the kernel's package, and busybox for the initrd."""
    return Request(SUITE, (PACKAGES[architecture], "busybox-static"), only=True)


def _fetch(store: Store, wanted: Request, out: Path) -> list[dict[str, str]]:
    """Download and unpack the kernel and busybox into `out`/files. Return the two packages."""
    log = store.log_of(out)
    packages = packages_of(store, wanted)
    for archive in archives.fetch(store, packages, log):
        done = subprocess.run(["dpkg-deb", "-x", str(archive), str(out / "files")], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise InnkeeperError(f"{archive.name} cannot be unpacked: {done.stderr.strip()}")
    return [one.listed() for one in packages]


def _pack(out: Path, packages: list[dict[str, str]], settings: Mapping[str, kconfig.Setting], table: Sequence[Wanted]) -> None:
    """Turn the unpacked packages into the step's results."""
    files = out / "files"
    (image,) = (files / "boot").glob("vmlinuz-*")
    release = image.name.removeprefix("vmlinuz-")
    config = (files / "boot" / f"config-{release}").read_text()
    symbols = kconfig.parse_config(config)
    modules = [wanted for wanted in table if symbols.get(wanted.symbol) == "m"]
    busybox = (files / "usr" / "bin" / "busybox").read_bytes()
    shutil.move(image, out / "vmlinuz")
    (out / "modules.initrd").write_bytes(make_initrd(ModuleFolder(files), modules, busybox))
    (out / "config").write_text(config)
    version = next(entry["version"] for entry in packages if entry["name"].startswith("linux-image-"))
    lacking: dict[str, JSON] = dict(lacks(settings, symbols, table))
    document: dict[str, JSON] = {"release": release, "version": version, "packages": [dict(entry) for entry in packages], "lacks": lacking}
    (out / "kernel.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    shutil.rmtree(files)
    for name in ("vmlinuz", "modules.initrd", "config"):
        (out / name).chmod(0o644)


def make_initrd(modules: ModuleFolder, table: Sequence[Wanted], busybox: bytes) -> bytes:
    """Return the initrd: /init, busybox, and the modules for the boot and for later.

    Those for the boot are unpacked, because an emulated processor is slow at it.
    """
    boot = modules.ordered(name for wanted in table if wanted.boot for name in wanted.modules)
    named = [name for wanted in table if not wanted.boot for name in wanted.modules]
    later = [name for name in modules.ordered(named) if name not in boot]
    order = [" ".join([name, *OPTIONS.get(name, {}).values()]) for name in boot]
    listed = [
        f"{alias} {' '.join(needed for needed in modules.ordered([name]) if needed in later)}"
        for name in later
        for alias in kernel_modules.aliases(modules[name])
    ]
    files = {f"boot/{name}.ko": (modules[name].content, 0o644) for name in boot}
    files |= {f"later/{name}{kernel_modules.SUFFIX}": (modules[name].packed, 0o644) for name in later}
    files |= {"boot/order": (_lines(order), 0o644), "later/list": (_lines(listed), 0o644)}
    files |= {"bin/busybox": (busybox, 0o755), "init": ((INITRD_SCRIPTS / "init").read_bytes(), 0o755)}
    files["later/modprobe"] = ((INITRD_SCRIPTS / "modprobe").read_bytes(), 0o755)
    return cpio.archive(files, folders=("dev", "proc", "root"))


def _lines(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
