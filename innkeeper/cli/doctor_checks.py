"""The checks of `doctor`. They install, build and change nothing."""

import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from innkeeper import programs
from innkeeper.cli import app
from innkeeper.errors import InnkeeperError
from innkeeper.paths import cache_root, program_name, project_root, store_root

if TYPE_CHECKING:
    from innkeeper.guest import BootFiles

RUN = ("qemu-system-x86_64", "setpriv", "skopeo", "mke2fs")
"""Programs that `run` needs to start a container, once the guest is built."""
SOMETIMES = {
    "virtiofsd": "run -v",
    "newuidmap": "build as an ordinary user",
    "fuse-overlayfs": "build as an ordinary user",
    "qemu-system-aarch64": "run --guest, a guest for aarch64",
    "qemu-aarch64-static": "build, a guest for aarch64",
}
"""Programs that only some uses need, and for each the use."""
BUILD = ("buildah", "mmdebstrap")
BUILD_AS_USER = ("newuidmap", "fuse-overlayfs")
ENVIRONMENT = ("gcc", "sys/capability.h", "Python.h")
"""Files and programs that compile the tests' own Python environment (build.py)."""


def examine(ask_guest: bool) -> dict[str, Any]:
    """Return the report of `doctor` as a JSON-serialisable document.

    With `ask_guest`, also boot a guest and query it.
    """
    proven = {
        "kvm": _kvm(),
        "vsock": _vsock(),
        "user namespaces": _user_namespaces(),
        "installing": _installing(),
        "templates": _templates(),
        "pool": _pool(),
    }
    parts = {"run": _run_part(about_to_boot=ask_guest), "build": _build_part(proven["user namespaces"]["works"]), "test": _test_part()}
    wanted = {name: [part for part, seen in parts.items() if name in seen["programs"]] for name in _all_programs(parts)}
    return {
        "host": {"system": _system(), "kernel": platform.release(), "machine": platform.machine(), "python": platform.python_version()},
        "cache": str(cache_root()),
        "parts": parts,
        "programs": {name: _program(name, needed_by) for name, needed_by in wanted.items()},
        "proven": proven,
        "guest": _guest() if ask_guest and parts["run"]["ready"] else {},
        "ready": parts["run"]["ready"],
    }


def _part(
    title: str, names: tuple[str, ...], other: list[str] | None = None, optional: tuple[str, ...] = (), notes: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the needs of a part and what is missing.

    `other` are reasons that no package fixes. `command` installs the missing packages. `notes` is
    what to expect of a part that is ready.
    """
    missing = [name for name in names if programs.find(name) is None]
    sudo = "" if os.geteuid() == 0 else "sudo "
    return {
        "title": title,
        "ready": not missing and not other,
        "missing": missing,
        "reasons": other or [],
        "command": f"{sudo}{programs.install_command(missing)}" if missing else "",
        "programs": list(names),
        "optional": {name: SOMETIMES[name] for name in optional if programs.find(name) is None},
        "notes": list(notes),
    }


def _run_part(*, about_to_boot: bool) -> dict[str, Any]:
    """Return the part of running.

    If this command is `about_to_boot` a guest, no later `run` builds one.
    """
    other = _wrong_processor()
    names: tuple[str, ...] = RUN
    notes: tuple[str, ...] = ()
    if not built():
        names = (*RUN, *_build_programs())  # the first run builds the guest
        other += _no_source_tree()
        notes = () if about_to_boot else (_first_run(),)
    return _part("run a container", names, other, optional=("virtiofsd",), notes=notes)


def _first_run() -> str:
    """Return what a `run` does first while the store has no whole guest."""
    command = f"`{program_name()} run`"
    if _built_kernel() is None:
        return f"the first {command} builds the guest's root and takes a kernel ready-made from Debian (about 2 minutes)"
    return f"the next {command} first builds what the store lacks of this version's guest (up to 2 minutes)"


def _build_part(user_namespaces: bool) -> dict[str, Any]:
    other = [] if os.geteuid() == 0 or user_namespaces else ["this host permits no user namespaces: build as root"]
    return _part("build a guest", _build_programs(), [*_wrong_processor(), *other, *_no_source_tree()])


def _build_programs() -> tuple[str, ...]:
    return BUILD if os.geteuid() == 0 else (*BUILD, *BUILD_AS_USER)


def _test_part() -> dict[str, Any]:
    if not app.in_source_tree("test"):
        return _part("run the tests", (), ["the tests are part of the source tree: run them in a clone"])
    parts: dict[str, Any] = app.module("test").PARTS
    names = dict.fromkeys((*RUN, *_build_programs(), *ENVIRONMENT, *(name for part in parts.values() for name in part.programs)))
    other = [] if os.geteuid() == 0 else [f"not root: {', '.join(folder for folder, part in parts.items() if part.root)} are left out"]
    return _part("run the tests", tuple(names), other)


def _wrong_processor() -> list[str]:
    machine = platform.machine()
    return [] if machine == "x86_64" else [f"guests are built for x86_64, this is {machine}"]


def _no_source_tree() -> list[str]:
    return [] if (project_root() / "agent" / "requirements.lock").exists() else ["there is no source tree to build the guest from"]


def built() -> bool:
    """Return whether the guest that `run` boots is in the store."""
    from innkeeper.guest.pipeline import make_boot_files
    from innkeeper.guest.store import FinishedSteps, NotBuilt

    try:
        make_boot_files("release", store=FinishedSteps(store_root()))
    except (NotBuilt, InnkeeperError, OSError):
        return False
    return True


def _all_programs(parts: dict[str, dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys([name for part in parts.values() for name in part["programs"]] + list(SOMETIMES)))


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _program(name: str, needed_by: list[str]) -> dict[str, Any]:
    path = programs.find(name)
    return {
        "path": str(path) if path else None,
        "version": _version(path) if path else None,
        "needed_by": needed_by,
        "only_for": SOMETIMES.get(name, ""),
        "why": programs.REGISTRY[name].why,
        "packages": list(programs.REGISTRY[name].packages),
    }


_VERSION_WORD = {"mke2fs": "-V", "mkfs.erofs": "-V", "nginx": "-v", "busybox": "--help", "go": "version", "ip": "-V"}


def _version(path: Path) -> str:
    """Return the first line with a digit that the program prints about its version.

    Returns its path if there is none, or if it is not a program.
    """
    if not os.access(path, os.X_OK) or path.is_dir() or ".so" in path.name:
        return str(path)
    word = _VERSION_WORD.get(path.name, "--version")
    try:
        output = subprocess.run([path, word], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return str(path)
    lines = [line.strip() for line in (output.stdout + output.stderr).splitlines() if any(letter.isdigit() for letter in line)]
    return lines[0][:100] if lines else str(path)


def _kvm() -> dict[str, Any]:
    from innkeeper.vm import HostPrograms, accel

    qemu, setpriv = programs.find("qemu-system-x86_64"), programs.find("setpriv")
    verdict = accel.kvm(_built_kernel(), HostPrograms(qemu, setpriv) if qemu and setpriv else None)
    return {"works": verdict.works, "detail": verdict.why if verdict.works else f"{verdict.why}: guests are emulated, slowly"}


def _built_kernel() -> Path | None:
    """Return a guest kernel for the proof of KVM, or None if none is built yet."""
    return next((path for name in ("kernel-*/vmlinux", "debian-kernel-*/vmlinuz") for path in sorted(store_root().glob(name))), None)


def _vsock() -> dict[str, Any]:
    from innkeeper.vm import vsock

    works = vsock.kernel_works()
    return {"works": works, "detail": "vhost-vsock of the kernel" if works else "no vhost-vsock here: guests are reached by virtio-serial"}


def _user_namespaces() -> dict[str, Any]:
    unshare = programs.find("unshare")
    works = unshare is not None and subprocess.run([unshare, "--user", "true"], capture_output=True, check=False).returncode == 0
    return {"works": works, "detail": "building as an ordinary user is possible" if works else "building needs root"}


def _installing() -> dict[str, Any]:
    refusal = programs.may_install()
    return {"works": refusal is None, "detail": refusal or "missing programs are installed on first use"}


def _templates() -> dict[str, Any]:
    from innkeeper.vm import template

    number, size, failure = template.summary()
    if failure is not None:
        return {"works": False, "detail": f"every run boots, because the last template failed: {failure}"}
    return {"works": number > 0, "detail": f"{number} of {size >> 20} MiB" if number else "none yet: the first run of a kind makes one"}


def _pool() -> dict[str, Any]:
    from innkeeper.errors import InnkeeperError
    from innkeeper.vm import pooled

    try:
        known = pooled.status()
    except (InnkeeperError, OSError) as error:
        return {"works": False, "detail": f"it does not answer: {error}"}
    if known is None:
        return {"works": False, "detail": f"none runs: `{program_name()} pool` keeps VMs ready for `run`"}
    memory = f"{known['memory'] >> 20} of {known['limit'] >> 20} MiB"
    detail = f"{known['idle']} of {known['size']} VMs idle, {known['claimed']} in use, {memory}"
    return {"works": known["idle"] > 0, "detail": f"{detail}; {known['failure']}" if known["failure"] else detail}


def _guest() -> dict[str, Any]:
    import json

    from innkeeper import guest
    from innkeeper.engine import session

    boot_files = guest.boot_files()
    from_template = _proven_template(boot_files)
    with session.bare_guest(boot_files) as agent:
        details = agent.guest_details().agent_details
        boot = agent.boot_timeline()
        return {
            "kernel": boot_files.kernel_from,
            "kernel lacks": ", ".join(f"CONFIG_{symbol} ({reason})" for symbol, reason in boot_files.kernel_lacks.items()) or "nothing",
            "agent": details.version,
            "storage drivers": ", ".join(details.storage_handlers),
            "seccomp": details.supports_seccomp,
            "memory of PID 1": f"{boot.resident_bytes / 1e6:.1f} MB",
            "threads of PID 1": boot.threads,
            "from a template": from_template,
            **{f"boot: {stage.name}": f"{stage.boottime_ns / 1e9:.2f} s" for stage in boot.stages},
            "features": json.loads(agent.features()),
        }


def _proven_template(boot_files: "BootFiles") -> str:
    """Return how long a VM takes to start from a template, or why it does not."""
    from innkeeper.engine import template_proof

    try:
        return f"a VM starts in {template_proof.prove(boot_files):.2f} s"
    except InnkeeperError as error:
        return f"no VM starts: {error}"
