"""Lay the guest out below a prefix, and take away exactly what was laid out.

`installed.json` lists each file with its sha256. A file that the operator has changed since is his: it stays, and is named.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from innkeeper.build.store import hash_file
from innkeeper.errors import InnkeeperError
from innkeeper.kata import files

QEMU = (Path("/opt/kata/bin/qemu-system-x86_64"), Path("/usr/bin/qemu-system-x86_64"))
VIRTIOFSD = (Path("/opt/kata/libexec/virtiofsd"), Path("/usr/libexec/virtiofsd"), Path("/usr/lib/virtiofsd"))
RECORD = "installed.json"


@dataclass(frozen=True)
class Plan:
    """Where everything is to be. `qemu` and `virtiofsd` are the node's own programs."""

    prefix: Path
    qemu: Path
    virtiofsd: Path

    @classmethod
    def of(cls, prefix: Path, qemu: Path | None = None, virtiofsd: Path | None = None) -> "Plan":
        """With Kata's programs where a node has them, else Debian's. Raises InnkeeperError."""
        if not prefix.is_absolute():
            raise InnkeeperError(f"--prefix {prefix}: the shim needs absolute paths")
        return cls(prefix, qemu or first(QEMU), virtiofsd or first(VIRTIOFSD))

    @property
    def configuration(self) -> Path:
        """The shim's configuration file."""
        return self.prefix / "etc/configuration-innkeeper-qemu.toml"

    def texts(self) -> dict[Path, str]:
        """Path -> content of what is written."""
        share = self.prefix / "share"
        return {
            self.configuration: files.shim_configuration(share / "bzImage", share / "innkeeper.img", self.qemu, self.virtiofsd),
            self.prefix / "etc/containerd-innkeeper.toml": files.containerd_handler(self.configuration),
            share / "runtimeclass.yaml": files.RUNTIME_CLASS,
            share / "pod.yaml": files.POD,
        }


def first(candidates: Iterable[Path]) -> Path:
    """The first that is there; the last to be named if none is, for a node that gets it later."""
    found = list(candidates)
    return next((path for path in found if path.exists()), found[-1])


def install(plan: Plan, artifacts: Iterable[Path]) -> list[Path]:
    """Copy the artifacts (bzImage, innkeeper.img, manifest.json) and write the files. Raises InnkeeperError, OSError.

    What a first installation has left unchanged is replaced; a changed file stays, and the new one is put beside it as NAME.new.
    """
    changed = set(_changed(plan.prefix))
    made: list[Path] = []
    for source in artifacts:
        made.append(_put(plan.prefix / "share" / source.name, source.read_bytes(), changed))
    for path, text in plan.texts().items():
        made.append(_put(path, text.encode(), changed))
    _record(plan.prefix, made)
    return made


def _put(path: Path, content: bytes, changed: set[Path]) -> Path:
    """By a name that appears when the content is whole."""
    target = path.with_name(f"{path.name}.new") if path in changed else path
    target.parent.mkdir(parents=True, exist_ok=True)
    whole = target.with_name(f".{target.name}.part")
    try:
        whole.write_bytes(content)
        whole.chmod(0o644)
        os.replace(whole, target)
    except OSError:
        whole.unlink(missing_ok=True)
        raise
    return target


def _record(prefix: Path, made: Iterable[Path]) -> None:
    before = _read(prefix)
    entries = {**before, **{str(path.relative_to(prefix)): hash_file(path) for path in made}}
    (prefix / RECORD).write_text(json.dumps({"version": 1, "files": entries}, indent=1) + "\n")


def _read(prefix: Path) -> dict[str, str]:
    try:
        document = json.loads((prefix / RECORD).read_text())
    except FileNotFoundError:
        return {}
    entries: dict[str, str] = document["files"]
    return entries


def _changed(prefix: Path) -> list[Path]:
    """Files that are not as they were installed."""
    return [prefix / name for name, sha256 in _read(prefix).items() if (prefix / name).exists() and hash_file(prefix / name) != sha256]


def uninstall(prefix: Path) -> list[Path]:
    """Remove what `install` made, and folders that are empty then. The changed files that stay. Raises InnkeeperError."""
    if not (prefix / RECORD).exists():
        raise InnkeeperError(f"{prefix} holds no installation", hint="was it another --prefix?")
    kept = _changed(prefix)
    for name in _read(prefix):
        if prefix / name not in kept:
            (prefix / name).unlink(missing_ok=True)
    (prefix / RECORD).unlink()
    for folder in (prefix / "etc", prefix / "share", prefix):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return kept
