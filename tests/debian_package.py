"""A Debian package unpacked for its files, without installing it: as apt has it for the builder's release, kept as a build step."""

import os
import subprocess
import tempfile
from pathlib import Path

from innkeeper import paths, programs
from innkeeper.errors import InnkeeperError
from innkeeper.guest import debian
from innkeeper.guest.builder import SUITE
from innkeeper.guest.store import Store

NEITHER_INDEX = ("DEP-11", "DEP-11-icons-small", "DEP-11-icons", "Contents-deb", "Translations")


def unpacked(package: str) -> Path:
    """Return a folder with the files of `package`. Raises InnkeeperError if this host's apt cannot get it."""
    return Store(paths.store_root()).step("debian-package", {"suite": SUITE, "package": package}, lambda out: _get(package, out))


def _get(package: str, out: Path) -> None:
    programs.require("apt-get")
    with tempfile.TemporaryDirectory(prefix="innkeeper-") as scratch:
        folder = Path(scratch)
        lines = debian.sources(folder, SUITE)
        if not lines:
            raise InnkeeperError(f"this host's apt knows no mirror for {package} of Debian {SUITE}")
        (folder / "sources.list").write_text("\n".join(lines) + "\n")
        for name in ("lists/partial", "cache/archives/partial", "empty"):
            (folder / name).mkdir(parents=True)
        _apt(folder, "update")
        _apt(folder, "download", package)
        (archive,) = folder.glob("*.deb")
        _run(folder, "dpkg-deb", "-x", str(archive), str(out))


def _apt(folder: Path, *arguments: str) -> None:
    """Run apt-get with lists and cache of its own. The host's other settings (a proxy) hold."""
    settings = {
        "Dir::State": folder,
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": folder / "empty",
        "APT::Sandbox::User": "root",
        **{f"Acquire::IndexTargets::deb::{name}::DefaultEnabled": "false" for name in NEITHER_INDEX},
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    _run(folder, "apt-get", "-qq", *options, *arguments)


def _run(folder: Path, *command: str) -> None:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode != 0:
        told = done.stdout.decode(errors="replace")[-400:]
        raise InnkeeperError(f"{command[0]} {command[-1]} failed with status {done.returncode}: {told}")
