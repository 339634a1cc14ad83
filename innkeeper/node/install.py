"""Install the shim and its guest on a node, and remove exactly what was installed."""

import contextlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import innkeeper.shim
from innkeeper import manifests, paths, programs
from innkeeper.errors import InnkeeperError
from innkeeper.guest import Artifacts
from innkeeper.installation import Installation, check_handlers_are_free, copy_file
from innkeeper.node import files, packages
from innkeeper.shim import settings
from innkeeper.shim.main import PROGRAM
from innkeeper.vm import template

RECORD = "installed-shim.json"
"""Another one than that of `kata install`, which may have the same prefix."""
HANDLER_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?")
PYTHON = Path("/usr/bin/python3")
FOUND = {"qemu": "qemu-system-x86_64", "virtiofsd": "virtiofsd", "setpriv": "setpriv", "nsenter": "nsenter"}
"""Key of the configuration -> the program of the node."""


@dataclass(frozen=True)
class Layout:
    """The folders of an installation: its own, for configurations, and one on containerd's PATH.

    `handler` is the name of its runtime handler and RuntimeClass.
    """

    prefix: Path
    etc: Path
    bin: Path
    handler: str = files.HANDLER

    def __post_init__(self) -> None:
        for name, folder in (("prefix", self.prefix), ("etc", self.etc), ("bin", self.bin)):
            if not folder.is_absolute():
                raise InnkeeperError(f"--{name} {folder}: containerd needs absolute paths")
        if HANDLER_NAME.fullmatch(self.handler) is None:
            raise InnkeeperError(f"--handler {self.handler}: a RuntimeClass has a name of lower case letters, digits and hyphens")

    @property
    def library(self) -> Path:
        """The Python packages."""
        return self.prefix / "lib"

    @property
    def share(self) -> Path:
        """The guest, and what is for Kubernetes. `kata install` may have its own beside it."""
        return self.prefix / "share/shim"

    @property
    def configuration(self) -> Path:
        """The shim's configuration file."""
        return self.etc / "innkeeper/shim.toml"

    @property
    def link(self) -> tuple[Path, Path]:
        """The link on containerd's PATH, and what it points to."""
        return self.bin / PROGRAM, self.prefix / "bin" / PROGRAM

    def texts(self, found: Mapping[str, Path]) -> dict[Path, str]:
        """Return the text of each file to write, by path.

        `found`: keys of the configuration, and the node's programs for them.
        """
        template = Path(innkeeper.shim.__file__).with_name("shim.toml").read_text()
        values = {"kernel": self.share / "vmlinux", "root": self.share / "rootfs.erofs", **found}
        return {
            self.configuration: files.configuration(template, values),
            **{
                self.etc / f"innkeeper/containerd-version-{version}.toml": files.handlers(version, self.configuration, self.handler)
                for version in manifests.CRI
            },
            self.share / "runtimeclass.yaml": files.runtime_classes(self.handler),
            self.share / "pod.yaml": files.pod(self.handler),
        }

    def launchers(self, python: Path) -> dict[Path, str]:
        """Return the text of each program, by path.

        These are the shim, and this command line for `shim check` and `shim uninstall`.
        """
        folder = self.prefix / "bin"
        return {
            folder / PROGRAM: files.launcher(python, self.library, "innkeeper.shim.main"),
            folder / "innkeeper": files.launcher(python, self.library, "innkeeper.cli"),
        }

    def copies(self, built: Artifacts, sources: Mapping[Path, Path]) -> dict[Path, Path]:
        """Return the source of each file to copy, by path.

        These are the guest, and the packages of `packages.sources`.
        """
        guest = {"vmlinux": built.vmlinux, "rootfs.erofs": built.rootfs, "manifest.json": built.manifest}  # their names vary
        return {self.share / name: source for name, source in guest.items()} | {
            self.library / name: source for name, source in sources.items()
        }


def python_for(sources: dict[Path, Path]) -> Path:
    """Return the interpreter for the packages.

    It is the system's, or this one if they are compiled for its version only.
    """
    bound = any(source.suffix == ".so" and ".abi3." not in source.name for source in sources.values())
    recent = [str(PYTHON), "-I", "-S", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    if bound or not PYTHON.exists() or subprocess.run(recent, stdin=subprocess.DEVNULL, check=False).returncode != 0:
        return Path(sys.executable)
    return PYTHON


def install(layout: Layout, built: Artifacts) -> list[Path]:
    """Copy guest and packages, write the files, return the paths of all but the packages.

    Files of an earlier installation are replaced if they are unchanged. A changed file stays, and
    the new one is written beside it as NAME.new. Raises InnkeeperError, also if `kata install` has
    put a handler of the same name there, and OSError.
    """
    check_handlers_are_free((layout.handler, layout.handler + files.EROFS), layout.prefix / "share/runtimeclass.yaml")
    installation = Installation(layout.prefix, RECORD)
    sources = packages.sources()
    made = [installation.put(path, partial(copy_file, source)) for path, source in layout.copies(built, sources).items()]
    python = python_for(sources)
    subprocess.run([python, "-I", "-m", "compileall", "-q", "-f", layout.library], stdin=subprocess.DEVNULL, check=True)
    for path in layout.library.rglob("__pycache__/*.pyc"):
        installation.adopt(path)
    found = {key: place for key, name in FOUND.items() if (place := programs.find(name)) is not None}
    made += [installation.put_text(path, text) for path, text in layout.texts(found).items()]
    made += [installation.put_text(path, text, 0o755) for path, text in layout.launchers(python).items()]
    made.append(installation.link(*layout.link))
    installation.save()
    return [path for path in made if layout.library not in path.parents]


def remove_templates(prefix: Path) -> list[Path]:
    """Remove the templates that were made for the guest of an installation.

    They are in the folder that its configuration names now. Returns those that stay, because a VM
    starts from them at this moment.
    """
    folder = settings.Settings.templates
    for path in Installation(prefix, RECORD).paths:
        if path.name == Layout(prefix, prefix, prefix).configuration.name:
            with contextlib.suppress(OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):  # it cannot have been used so
                folder = Path(tomllib.loads(path.read_text()).get("templates", folder))
    os.environ[paths.TEMPLATES_VARIABLE] = str(folder)
    return template.remove_with_kernel(prefix)


def uninstall(prefix: Path) -> list[Path]:
    """Remove what `install` created, and folders that are empty then.

    Returns the changed files, which stay. Raises InnkeeperError if there is no installation.
    """
    return Installation(prefix, RECORD).remove()
