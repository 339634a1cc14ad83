"""The configuration file: what a VM is made of, and how large it is.

A handler of containerd may name a file of its own (`ConfigPath`). Otherwise it is the file that the
environment names (`INNKEEPER_SHIM_CONFIG`), or `PATH`. `shim.toml` beside this file describes every
key.
"""

import os
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from innkeeper.errors import InnkeeperError
from innkeeper.shim.handler_options import VARIABLE
from innkeeper.vm import HostPrograms

PATH = Path("/etc/innkeeper/shim.toml")
FOLDERS = ("state", "templates")
"""Keys of folders, which the shim makes."""
VIRTIO_FS, NONE = "virtio-fs", "none"
"""Values of `shared_fs`."""
HINT = "innkeeper/shim/shim.toml of the sources describes every key"


@dataclass(frozen=True)
class Settings:
    """The keys of the file, with their defaults. Paths are absolute."""

    kernel: Path
    root: Path
    qemu: Path = Path("/usr/bin/qemu-system-x86_64")
    virtiofsd: Path = Path("/usr/libexec/virtiofsd")
    setpriv: Path = Path("/usr/bin/setpriv")
    nsenter: Path = Path("/usr/bin/nsenter")
    initrd: Path | None = None
    vhost_device_vsock: Path | None = None
    state: Path = Path("/run/innkeeper")
    templates: Path = Path("/var/lib/innkeeper/templates")
    accelerator: str = "kvm"
    machine_type: str | None = None
    kernel_parameters: tuple[str, ...] = ()
    memory_mib: int = 512
    overhead_mib: int = 256
    host_overhead_mib: int = 256
    cpus: int = 1
    boot_seconds: int = 60
    guest_selinux: bool = False
    shared_fs: str = VIRTIO_FS

    @property
    def shares(self) -> bool:
        """Whether a VM has a folder that the host shares with it, by virtiofsd."""
        return self.shared_fs == VIRTIO_FS

    @property
    def host(self) -> HostPrograms:
        """The host's programs that a VM is made of."""
        return HostPrograms(self.qemu, self.setpriv, self.virtiofsd, self.vhost_device_vsock, self.nsenter)


def load(config_path: str = "") -> Settings:
    """Read the configuration file. Raises InnkeeperError, which names the file and the key."""
    path = Path(config_path or os.environ.get(VARIABLE) or PATH)
    try:
        given = tomllib.loads(path.read_text())
    except OSError as error:
        raise InnkeeperError(f"{path}: {error.strerror}", hint="containerd's shim reads its configuration there") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InnkeeperError(f"{path}: {error}") from error
    known = {field.name: field for field in fields(Settings)}
    if unknown := sorted(given.keys() - known):
        raise InnkeeperError(f"{path}: unknown key {unknown[0]}", hint=HINT)
    if missing := [name for name in ("kernel", "root") if name not in given]:
        raise InnkeeperError(f"{path}: key {missing[0]} is missing", hint=HINT)
    settings = Settings(**{name: _value(path, name, known[name].type, value) for name, value in given.items()})
    _check_files(path, settings)
    return settings


def _value(path: Path, name: str, kind: object, value: object) -> Any:
    """Return a value of the file as a field of type `kind` has it.

    Raises InnkeeperError if it is of another.
    """
    if kind in (Path, Path | None):
        wanted, right = "an absolute path", isinstance(value, str) and value.startswith("/")
    elif kind is int:
        wanted, right = "a number above 0", isinstance(value, int) and not isinstance(value, bool) and value > 0
    elif kind is bool:
        wanted, right = "true or false", isinstance(value, bool)
    elif kind == tuple[str, ...]:
        wanted, right = "a list of strings", isinstance(value, list) and all(isinstance(word, str) for word in value)
    else:
        wanted, right = "a string", isinstance(value, str)
    if not right:
        raise InnkeeperError(f"{path}: {name} must be {wanted}, not {value!r}", hint=HINT)
    if kind in (Path, Path | None):
        return Path(str(value))
    return tuple(value) if isinstance(value, list) else value


def _check_files(path: Path, settings: Settings) -> None:
    """Raise InnkeeperError for a file that is not there.

    A missing program fails late and says little.
    """
    unused = FOLDERS if settings.shares else (*FOLDERS, "virtiofsd")
    for field in fields(Settings):
        value = getattr(settings, field.name)
        if isinstance(value, Path) and field.name not in unused and not value.is_file():
            raise InnkeeperError(f"{path}: {field.name}: no such file: {value}")
    if settings.accelerator not in ("kvm", "tcg"):
        raise InnkeeperError(f"{path}: accelerator must be kvm or tcg, not {settings.accelerator!r}")
    if settings.shared_fs not in (VIRTIO_FS, NONE):
        raise InnkeeperError(f"{path}: shared_fs must be {VIRTIO_FS} or {NONE}, not {settings.shared_fs!r}", hint=HINT)
