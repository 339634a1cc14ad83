"""Host programs: the Debian package of each, why it is needed, and how to get it.

`require(NAME)` finds a program, or installs its package on Debian and Ubuntu if the user may do so.
Otherwise the error contains the exact command to install it.

Only the standard library is used here, because `build.py` calls this module before anything else is
installed.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from innkeeper import progress
from innkeeper.errors import InnkeeperError

NO_INSTALL_ENV = "INNKEEPER_NO_INSTALL"
"""Environment variable for `--no-install`: with any value but "" or "0", nothing is installed.

The command is printed instead.
"""

_SEARCH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


@dataclass(frozen=True)
class Program:
    """The source of a program.

    `packages` are Debian packages. `paths` are paths outside PATH. `alternatives` are packages to
    use on releases that do not have `packages`.
    """

    packages: tuple[str, ...]
    why: str
    paths: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()


REGISTRY: dict[str, Program] = {
    "qemu-system-x86_64": Program(("qemu-system-x86",), "runs the virtual machine"),
    "qemu-system-aarch64": Program(("qemu-system-arm",), "runs the virtual machine of a guest for aarch64"),
    "qemu-aarch64-static": Program(("qemu-user-static",), "runs programs of aarch64 in the builder"),
    "virtiofsd": Program(
        ("virtiofsd",),
        "shares -v folders with the guest",
        paths=("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd"),
        alternatives=("qemu-system-common",),
    ),
    "buildah": Program(("buildah", "crun"), "runs the builder container and assembles root file systems"),
    "skopeo": Program(("skopeo",), "copies OCI images from registries, archives and local storage"),
    "mmdebstrap": Program(("mmdebstrap", "debian-archive-keyring"), "makes the builder's root without any registry"),
    "mkfs.erofs": Program(("erofs-utils",), "turns an image into a read-only block device"),
    "mke2fs": Program(("e2fsprogs",), "formats the scratch disk"),
    "newuidmap": Program(("uidmap",), "maps user ids when building as an ordinary user"),
    "fuse-overlayfs": Program(("fuse-overlayfs",), "mounts image layers when building as an ordinary user"),
    "gcc": Program(("gcc", "libc6-dev"), "compiles the test payload and python-prctl"),
    "go": Program(("golang-go",), "builds the other implementation of the wire that tests talk to", paths=("/usr/local/go/bin/go",)),
    "make": Program(("make",), "runs kernel configuration checks"),
    "sys/capability.h": Program(("libcap-dev",), "is needed to compile python-prctl", paths=("/usr/include/sys/capability.h",)),
    "Python.h": Program(("python3-dev",), "is needed to compile python-prctl"),
    "libseccomp.so.2": Program(
        ("libseccomp2",),
        "compiles seccomp profiles",
        paths=("/usr/lib/x86_64-linux-gnu/libseccomp.so.2", "/usr/lib/aarch64-linux-gnu/libseccomp.so.2", "/usr/lib64/libseccomp.so.2"),
    ),
    "ensurepip": Program(
        (f"python3.{sys.version_info.minor}-venv",),
        "puts pip into the private Python environment",
        paths=(f"/usr/lib/python3.{sys.version_info.minor}/ensurepip/__init__.py",),
    ),
    "apt-get": Program(("apt",), "tells the builder which mirror to use"),
    "ovmf": Program(("ovmf",), "is the firmware that tests start unified kernel images by", paths=("/usr/share/OVMF/OVMF_CODE_4M.fd",)),
    "openssl": Program(("openssl",), "signs the provenance of a build"),
    "busybox": Program(("busybox-static",), "is the small image that tests run"),
    "redis-server": Program(("redis-server",), "is the service that tests run in a guest"),
    "redis-benchmark": Program(("redis-tools",), "asks the redis service in tests"),
    "nginx": Program(("nginx-light",), "is the web server that tests run in a guest"),
    "docker-registry": Program(("docker-registry",), "is the registry that tests pull from"),
    "runc": Program(("runc",), "is the yardstick of tests and bench"),
    "crun": Program(("crun",), "is the yardstick of tests and bench"),
    "podman": Program(("podman", "conmon", "containernetworking-plugins", "iptables"), "runs containers by the runtime command in tests"),
    "ctr": Program(("containerd",), "runs containers by the runtime command in tests"),
    "cni": Program(("containernetworking-plugins",), "gives pods a network in tests", paths=("/usr/lib/cni/bridge",)),
    "curl": Program(("curl",), "asks the web server in tests"),
    "strace": Program(("strace",), "shows the agent's system calls in tests"),
    "sfdisk": Program(("fdisk",), "reads partition tables in tests"),
    "veritysetup": Program(("cryptsetup-bin",), "makes hash trees in tests"),
    "mkswap": Program(("util-linux",), "makes swap space in tests"),
    "iptables-save": Program(("iptables",), "reads the packet filter in tests"),
    "ip": Program(("iproute2",), "shows interfaces and routes in tests"),
    "unshare": Program(("util-linux",), "makes namespaces in tests"),
    "setpriv": Program(("util-linux",), "sees to it that helper processes end with their owner"),
}


def find(name: str) -> Path | None:
    """Return the path of the program or file `name`, or None.

    Searches PATH, then the usual system folders, then the program's `paths`.
    """
    program = REGISTRY.get(name)
    search = os.pathsep.join([os.environ.get("PATH", ""), *_SEARCH])
    if found := shutil.which(name, path=search):
        return Path(found)
    if name == "Python.h":
        import sysconfig

        header = Path(sysconfig.get_path("include"), name)
        return header if header.exists() else None
    for path in program.paths if program else ():
        if os.path.exists(path):
            return Path(path)
    return None


def require(name: str) -> Path:
    """Return the path of program `name`. Install its package if it is missing and this is allowed.

    Otherwise raises InnkeeperError with the program, the reason and the command.
    """
    return require_all((name,))[name]


def require_all(names: Iterable[str]) -> dict[str, Path]:
    """Do the same as `require` for several programs, with one installation for all missing ones."""
    wanted = list(dict.fromkeys(names))
    found = {name: path for name in wanted if (path := find(name)) is not None}
    missing = [name for name in wanted if name not in found]
    if missing:
        _install(missing)
        for name in missing:
            if (path := find(name)) is None:
                raise InnkeeperError(f"{name} is still missing after {' '.join(REGISTRY[name].packages)} was installed")
            found[name] = path
    return found


def may_install() -> str | None:
    """Return why packages cannot be installed on this host, or None if they can."""
    if os.environ.get(NO_INSTALL_ENV, "0") not in ("", "0"):
        return "installing is switched off (--no-install)"
    if shutil.which("apt-get", path=os.pathsep.join(_SEARCH)) is None:
        return "this host has no apt-get"
    if os.geteuid() == 0 or _sudo_works():
        return None
    return "not root, and sudo asks for a password"


def install_command(names: Iterable[str]) -> str:
    """Return the command that installs what `names` need."""
    return "apt-get install -y --no-install-recommends " + " ".join(_packages(names))


def _sudo_works() -> bool:
    sudo = shutil.which("sudo")
    return sudo is not None and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0


def _packages(names: Iterable[str]) -> list[str]:
    packages: dict[str, None] = {}
    for name in names:
        program = REGISTRY.get(name)
        if program is None:
            raise InnkeeperError(f"{name} is missing, and no package is known that has it")
        chosen = program.packages
        if program.alternatives and not all(_known(package) for package in chosen):
            chosen = program.alternatives
        packages.update(dict.fromkeys(chosen))
    return list(packages)


def _known(package: str) -> bool:
    """Return whether apt has a version of `package` to install.

    Returns True if there is no apt-cache to ask.
    """
    apt_cache = shutil.which("apt-cache", path=os.pathsep.join(_SEARCH))
    if apt_cache is None:
        return True
    output = subprocess.run([apt_cache, "policy", package], capture_output=True, text=True, check=False, env=_c_locale())
    return any(line.strip().startswith("Candidate:") and "(none)" not in line for line in output.stdout.splitlines())


def _c_locale() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", "DEBCONF_NONINTERACTIVE_SEEN": "true"}


def _install(names: list[str]) -> None:
    packages = _packages(names)
    reasons = "; ".join(f"{name} {REGISTRY[name].why}" for name in names)
    prefix = "" if os.geteuid() == 0 else "sudo "
    hint = f"install it: {prefix}{install_command(names)}"
    if refusal := may_install():
        raise InnkeeperError(f"missing on this host: {reasons} ({refusal})", hint=hint)
    if not all(_known(package) for package in packages):
        with progress.step("updating the package lists"):
            _as_root(["apt-get", "update"], hint)
        packages = _packages(names)
    with progress.step(f"installing {' '.join(packages)} ({reasons})"):
        options = ["-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=600"]
        _as_root(["apt-get", "install", *options, *packages], hint)


# Installing a package for a test must not start its service on this host. Debian's means against
# that is policy-rc.d (invoke-rc.d(8)). If this script is killed, the mark shows a later run that
# the file is ours and may be removed.
_GUARDED = r"""
guard=/usr/sbin/policy-rc.d
mark='# written by innkeeper for the time of one installation'
if [ ! -e "$guard" ] || grep -qsF "$mark" "$guard"; then
    trap 'rm -f "$guard"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$guard" && chmod 755 "$guard"
fi
"$@"
"""


def _as_root(argv: list[str], hint: str) -> None:
    """Run `argv` as root, and keep services from starting.

    Its output is only shown if it fails, as part of the InnkeeperError.
    """
    command = ["/bin/sh", "-c", _GUARDED, "sh", *argv]
    if os.geteuid() != 0:
        command = ["sudo", "-n", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", *command]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_c_locale(), check=False)
    if done.returncode != 0:
        last = "\n".join(done.stdout.decode(errors="replace").splitlines()[-6:])
        raise InnkeeperError(f"{' '.join(argv)} failed with status {done.returncode}:\n{last}", hint=hint)
