"""What a node lacks for the shim, in the order in which to mend it.

Nothing is installed or changed. Each check is a function that returns a `Finding`. A later one may
rely on what the earlier ones have found, and then says so in place of a second complaint.
"""

import os
import platform
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from innkeeper import manifests, programs
from innkeeper.errors import InnkeeperError
from innkeeper.node import files
from innkeeper.paths import program_name
from innkeeper.shim import settings
from innkeeper.shim.main import PROGRAM
from innkeeper.shim.settings import Settings

SECONDS = 20.0
"""Seconds that a program gets that is asked about itself."""
SOCKET = Path("/run/containerd/containerd.sock")
KERNEL = (5, 12)
MODULES = {
    "tun": "CONFIG_TUN",
    "act_mirred": "CONFIG_NET_ACT_MIRRED",
    "cls_u32": "CONFIG_NET_CLS_U32",
    "sch_ingress": "CONFIG_NET_SCH_INGRESS",
    "overlay": "CONFIG_OVERLAY_FS",
}
"""Modules of the host's kernel that pods need. A kernel may have them built in."""


@dataclass(frozen=True)
class Finding:
    """What a check has found.

    `mend` is what to do about it. A failed check that is not `required` costs comfort or speed.
    """

    name: str
    works: bool
    detail: str
    mend: str = ""
    required: bool = True


def examine(configuration: Path, socket: Path = SOCKET) -> list[Finding]:
    """Return a finding for each check, in the order in which to mend what does not work."""
    loaded, finding = _configuration(configuration)
    host = [_machine(), _kernel(os.uname().release), _kvm(loaded), _vsock(loaded), *_modules()]
    return [*host, *_programs(loaded), finding, _network_library(), *_containerd(socket)]


def _machine() -> Finding:
    machine = platform.machine()
    return Finding("processor", machine == "x86_64", machine, "use a node with an x86_64 processor: the guest is built for it only")


def _kernel(release: str) -> Finding:
    """Compare the kernel with what folders need that are shared with a guest: mount_setattr(2)."""
    words = release.replace("-", ".").split(".")
    number = tuple(int(word) for word in words[:2] if word.isdigit())
    return Finding("kernel", number >= KERNEL, f"Linux {release}", f"use a node with Linux {KERNEL[0]}.{KERNEL[1]} or later")


def _configuration(path: Path) -> tuple[Settings | None, Finding]:
    """Read the shim's configuration as the shim does: it names files that are missing, too."""
    try:
        found = settings.load(str(path))
    except InnkeeperError as error:
        return None, Finding("configuration", False, error.message, f"{program_name()} shim install, or correct the file")
    return found, Finding("configuration", True, str(path))


def _programs(found: Settings | None) -> Iterator[Finding]:
    """Look for a VM's programs: those of the configuration, else those of the node."""
    given = {"qemu-system-x86_64": found.qemu, "virtiofsd": found.virtiofsd} if found is not None else {}
    for name in ("qemu-system-x86_64", "virtiofsd") if found is None or found.shares else ("qemu-system-x86_64",):
        path = given.get(name) or programs.find(name)
        yield Finding(name, path is not None, _version(path) if path is not None else "not found", programs.install_command([name]))


def _version(program: Path) -> str:
    text = _output([str(program), "--version"])
    return next((line.strip() for line in text.splitlines() if any(letter.isdigit() for letter in line)), str(program))


def _kvm(found: Settings | None) -> Finding:
    """Look for KVM, by a proof with the guest's kernel if that is there."""
    from innkeeper.vm import accel

    if found is not None and found.accelerator == "tcg":
        mend = 'set accelerator = "kvm" in the configuration: emulation is slow, and promises no security'
        return Finding("KVM", False, "the configuration asks for QEMU's emulation", mend, required=False)
    verdict = accel.kvm(found.kernel, found.host) if found is not None else accel.kvm(None)
    mend = "load kvm_intel or kvm_amd, enable virtualisation in the firmware, or nested virtualisation in the host of this machine"
    return Finding("KVM", verdict.works, verdict.why, mend)


def _vsock(found: Settings | None) -> Finding:
    from innkeeper.vm import vsock

    works = vsock.kernel_works()
    detail = (
        "the kernel's vhost-vsock"
        if works
        else "no vhost-vsock: guests are reached by "
        + ("vhost-device-vsock" if found is not None and found.vhost_device_vsock else "a virtio-serial port")
    )
    return Finding("vhost-vsock", works, detail, "modprobe vhost_vsock", required=False)


def _modules() -> Iterator[Finding]:
    for name, option in MODULES.items():
        how = module_state(name)
        yield Finding(f"module {name}", bool(how), how or "not in this kernel", f"use a kernel with {option}, or: modprobe {name}")


def module_state(name: str) -> str:
    """Return how the running kernel has a module: loaded, built in, loadable. Otherwise ""."""
    if Path("/sys/module", name).exists() or name in Path("/proc/filesystems").read_text().split():
        return "loaded"
    if name == "tun" and Path("/dev/net/tun").exists():
        return "loaded"
    folder = Path("/lib/modules", os.uname().release)
    for file, how in (("modules.builtin", "built in"), ("modules.dep", "loadable")):
        try:
            lines = (folder / file).read_text().splitlines()
        except OSError:
            continue
        if any(line.partition(":")[0].rpartition("/")[2].partition(".")[0] == name for line in lines):
            return how
    return "built in" if _built_in_symbol(MODULES.get(name, "")) else ""


def _built_in_symbol(option: str) -> bool:
    """Return whether the running kernel's configuration, if it shows it, has `option`."""
    try:
        import gzip

        text = gzip.decompress(Path("/proc/config.gz").read_bytes()).decode()
    except OSError:
        return False
    return f"\n{option}=y\n" in text


def _network_library() -> Finding:
    import importlib.util

    works = importlib.util.find_spec("pyroute2") is not None
    return Finding("pyroute2", works, "found" if works else "not found by this Python", f"{program_name()} shim install has a copy of it")


def _containerd(socket: Path) -> Iterator[Finding]:
    """Look at the node's containerd: version, shim on its PATH, handlers, snapshotters."""
    program = programs.find("containerd")
    if program is None:
        yield Finding("containerd", False, "not found", "install containerd 1.6 or later")
        return
    text = _output([str(program), "--version"])
    yield Finding("containerd", bool(text), text.strip() or f"{program} does not run", "install containerd 1.6 or later")
    yield _on_path(_running(program.name))
    yield from _handlers(_output([str(program), "config", "dump"]))
    yield from _snapshotters(socket)


def _running(name: str) -> str | None:
    """Return the PATH of a running containerd, or None."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().strip() == name:
                lines = (process / "environ").read_bytes().split(b"\0")
                return next((os.fsdecode(line[5:]) for line in lines if line.startswith(b"PATH=")), "")
        except OSError:
            continue  # it has ended
    return None


def _on_path(path: str | None) -> Finding:
    import shutil

    where = shutil.which(PROGRAM, path=path)
    whose = "this shell's PATH, as no containerd runs" if path is None else "containerd's PATH"
    detail = f"{where} on {whose}" if where else f"{PROGRAM} is not on {whose}"
    return Finding("shim", where is not None, detail, f"{program_name()} shim install --bin DIR, with a folder of containerd's PATH")


def _handlers(dump: str) -> Iterator[Finding]:
    """Look for the runtime handlers in containerd's configuration.

    Also check that nothing else of CRI's was lost on the way.
    """
    try:
        document = tomllib.loads(dump)
    except tomllib.TOMLDecodeError as error:
        yield Finding("handler innkeeper", False, f"containerd config dump: {error}", "correct /etc/containerd/config.toml")
        return
    tables = [document.get("plugins", {}).get(name, {}) for name in manifests.CRI.values()]
    runtimes = {name: runtime for table in tables for name, runtime in table.get("containerd", {}).get("runtimes", {}).items()}
    version = 3 if manifests.CRI[3] in document.get("plugins", {}) else 2
    mend = f"add /etc/innkeeper/containerd-version-{version}.toml to containerd's configuration (docs/shim.md), restart containerd"
    ours = {name: runtime for name, runtime in runtimes.items() if runtime.get("runtime_type") == files.RUNTIME}
    for default, of_erofs in ((files.HANDLER, False), (files.HANDLER + files.EROFS, True)):
        found = next((name for name, runtime in ours.items() if (runtime.get("snapshotter") == "erofs") == of_erofs), None)
        taken = f"it is of {runtimes[default].get('runtime_type')}" if default in runtimes else "not in containerd's configuration"
        if not of_erofs or version == 3:
            yield Finding(f"handler {found or default}", found is not None, "configured" if found else taken, mend, not of_erofs)


def _snapshotters(socket: Path) -> Iterator[Finding]:
    ctr = programs.find("ctr")
    listed = _output([str(ctr), "--address", str(socket), "plugins", "ls"]) if ctr is not None and socket.exists() else ""
    if not listed:
        yield Finding("snapshotter", False, f"no containerd answers at {socket}", "systemctl start containerd")
        return
    words = [line.split() for line in listed.splitlines() if line.startswith("io.containerd.snapshotter.v1")]
    states = {name: state for _, name, *_, state in words}
    for name, required in (("overlayfs", True), ("erofs", False)):
        if required or name in states:
            state = states.get(name, "not in this containerd")
            mend = "modprobe erofs, and install erofs-utils" if name == "erofs" else "modprobe overlay, and restart containerd"
            yield Finding(f"snapshotter {name}", state == "ok", state, mend, required)


def _output(argv: Iterable[str]) -> str:
    """Return the standard output of a program that tells about itself, and nothing if it fails."""
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
    try:
        done = run(list(argv), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
