"""Finds out what `doctor` tells. Nothing is installed or changed by looking."""

import platform
import subprocess
from pathlib import Path
from typing import Any

from innkeeper import programs
from innkeeper.paths import cache_root, store_root

REQUIRED = ("qemu-system-x86_64", "virtiofsd", "buildah", "skopeo", "mmdebstrap", "mkfs.erofs", "mke2fs")
FOR_TESTS = ("busybox", "redis-server", "redis-benchmark", "nginx", "docker-registry", "runc", "crun", "curl", "gcc")
USEFUL = ("newuidmap", "fuse-overlayfs", *FOR_TESTS)


def examine(ask_guest: bool) -> dict[str, Any]:
    """Everything `doctor` prints, as one JSON-able document."""
    found = {name: _program(name, required=name in REQUIRED) for name in (*REQUIRED, *USEFUL)}
    missing = [name for name in REQUIRED if not found[name]["path"]]
    return {
        "host": {"system": _system(), "kernel": platform.release(), "machine": platform.machine(), "python": platform.python_version()},
        "cache": str(cache_root()),
        "programs": found,
        "proven": {
            "kvm": _kvm(),
            "vsock": _vsock(),
            "user namespaces": _user_namespaces(),
            "installing": _installing(),
        },
        "guest": _guest() if ask_guest and not missing else {},
        "missing_command": programs.install_command(missing) if missing else "",
        "ready": not missing,
    }


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _program(name: str, required: bool) -> dict[str, Any]:
    path = programs.find(name)
    return {
        "path": str(path) if path else None,
        "version": _version(path) if path else None,
        "required": required,
        "why": programs.REGISTRY[name].why,
        "packages": list(programs.REGISTRY[name].packages),
    }


_VERSION_WORD = {"mke2fs": "-V", "mkfs.erofs": "-V", "nginx": "-v", "busybox": "--help"}


def _version(path: Path) -> str:
    """The first line in which the program tells its version; its path where it tells none."""
    word = _VERSION_WORD.get(path.name, "--version")
    try:
        told = subprocess.run([path, word], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return str(path)
    lines = [line.strip() for line in (told.stdout + told.stderr).splitlines() if any(letter.isdigit() for letter in line)]
    return lines[0][:100] if lines else str(path)


def _kvm() -> dict[str, Any]:
    from innkeeper.vm import accel

    able = programs.find("qemu-system-x86_64") and programs.find("setpriv")
    verdict = accel.kvm(_built_kernel() if able else None)
    return {"works": verdict.works, "detail": verdict.why if verdict.works else f"{verdict.why}: guests are emulated, slowly"}


def _built_kernel() -> Path | None:
    """A guest kernel for the proof, if one has been built already."""
    return next(iter(sorted(store_root().glob("kernel-*/vmlinux"))), None)


def _vsock() -> dict[str, Any]:
    from innkeeper.vm import vsock

    backend = vsock.KernelVsock.open()
    works = backend is not None
    if backend is not None:
        backend.close()
    return {"works": works, "detail": "vhost-vsock of the kernel" if works else "no vhost-vsock here: vhost-device-vsock stands in"}


def _user_namespaces() -> dict[str, Any]:
    unshare = programs.find("unshare")
    works = unshare is not None and subprocess.run([unshare, "--user", "true"], capture_output=True, check=False).returncode == 0
    return {"works": works, "detail": "building as an ordinary user is possible" if works else "building needs root"}


def _installing() -> dict[str, Any]:
    refusal = programs.may_install()
    return {"works": refusal is None, "detail": refusal or "missing programs are installed on first use"}


def _guest() -> dict[str, Any]:
    import json

    from innkeeper.engine import session

    with session.bare_guest() as agent:
        details = agent.guest_details().agent_details
        boot = agent.boot_timeline()
        return {
            "agent": details.version,
            "storage drivers": ", ".join(details.storage_handlers),
            "seccomp": details.supports_seccomp,
            "memory of PID 1": f"{boot.resident_bytes / 1e6:.1f} MB",
            "threads of PID 1": boot.threads,
            **{f"boot: {stage.name}": f"{stage.boottime_ns / 1e9:.2f} s" for stage in boot.stages},
            "features": json.loads(agent.features()),
        }
