"""Pins: the exact Debian packages of each builder, as `guest.lock` names them.

    pins = Pins.read(project / "guest.lock")
    pins.of(Request("trixie", ("apparmor", "secilc")))   # the packages to add to the base, or None

A builder that the lock does not know (more packages by a guest.toml, a program for the host) has no
pins: it takes what the mirror has on the day on which it is made.
"""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from innkeeper import paths
from innkeeper.errors import InnkeeperError

NAME = "guest.lock"
"""The lock file of the source tree, and of a guest.toml: beside it."""
VERSION = 2
"""The version of the file's format."""


@dataclass(frozen=True, order=True)
class Package:
    """A Debian package: the archive with this hash, below a mirror at `path`.

    `size` is in bytes.
    """

    name: str
    version: str
    architecture: str
    sha256: str
    size: int
    path: str

    @property
    def key(self) -> str:
        return f"{self.name} {self.version} {self.architecture}"

    @property
    def file(self) -> str:
        """Return the name of the archive, as apt's cache has it."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"

    @property
    def is_security_update(self) -> bool:
        return self.path.startswith("pool/updates/")

    def listed(self) -> dict[str, str]:
        """Return the package as an entry of a builder's list of packages."""
        return {"name": self.name, "version": self.version, "architecture": self.architecture, "sha256": self.sha256}


@dataclass(frozen=True)
class Request:
    """A request to Debian: `packages` with all dependencies, beyond the base and the packages `on`.

    Without `packages` it is the base itself. With `only`, the packages alone, without dependencies.
    `architecture` is another one than this machine's, by our name for it, or empty.
    """

    suite: str
    packages: tuple[str, ...] = ()
    on: tuple[str, ...] = ()
    only: bool = False
    architecture: str = ""

    @property
    def key(self) -> str:
        """Return the key of the request in `Pins.builders`."""
        return f"{prefix(self.architecture)}{self.name}"

    @property
    def name(self) -> str:
        """Return the name of the request in its architecture's part of a lock file."""
        below = f" on {' '.join(self.on)}:" if self.on else " only" if self.only else ""
        return " ".join([f"{self.suite}{below}", *self.packages])


def prefix(architecture: str) -> str:
    """Return the prefix of the keys of an architecture's requests, empty for this machine's."""
    return f"{architecture}/" if architecture else ""


@dataclass(frozen=True)
class Pins:
    """The packages of each builder by the request's key.

    `file` is where they come from, for messages. `builder_ids` has identities of builders that were
    computed before: each `run` asks for some of them a dozen times.
    """

    builders: Mapping[str, Sequence[Package]] = field(default_factory=dict)
    file: Path | None = None
    builder_ids: dict[str, str] = field(default_factory=dict, compare=False)

    def of(self, request: Request) -> tuple[Package, ...] | None:
        """Return the packages of a request, or None if there are no pins for it."""
        found = self.builders.get(request.key)
        return None if found is None else tuple(found)

    @property
    def hint(self) -> str:
        """Return what to do if a package cannot be had."""
        return f"`{paths.program_name()} build --refresh` takes what the mirror has now, and writes {self.file or NAME}"

    @classmethod
    def read(cls, file: Path) -> "Pins":
        """Return the pins of a lock file, none if there is no file. Raises InnkeeperError."""
        if not file.exists():
            return cls({}, file)
        builders: dict[str, Sequence[Package]] = {}
        try:
            for architecture, part in document(file)["architectures"].items():
                before = prefix(architecture if architecture != platform.machine() else "")
                packages = {key: Package(*key.split(" "), **entry) for key, entry in part.get("packages", {}).items()}
                builders |= {before + name: [packages[key] for key in keys] for name, keys in part.get("builders", {}).items()}
            return cls(builders, file)
        except (KeyError, TypeError, ValueError) as error:
            raise InnkeeperError(f"{file}: not a lock file: {error}") from None


def document(file: Path) -> dict[str, Any]:
    """Return the content of a lock file. Raises InnkeeperError."""
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        raise InnkeeperError(f"{file}: no such lock file", hint="write it: add --refresh") from None
    except (OSError, ValueError) as error:
        raise InnkeeperError(f"{file}: not a lock file: {error}") from None
    version = found.get("version") if isinstance(found, dict) else None
    if version != VERSION or not isinstance(found.get("architectures"), dict):
        raise InnkeeperError(
            f"{file}: version {version!r} of the format, this program knows {VERSION}", hint="write it anew: add --refresh"
        )
    return found


def file_of(guest_files: Sequence[Path], *, new: bool = False) -> Path:
    """Return the path of a guest's lock file.

    It is beside its last guest.toml if it is there (or is to be `new`), else it is the source
    tree's.
    """
    beside = guest_files[-1].absolute().parent / NAME if guest_files else None
    return beside if beside and (new or beside.exists()) else paths.project_root() / NAME


def of_tree() -> Pins:
    """Return the pins of the source tree."""
    return Pins.read(paths.project_root() / NAME)


def digest(packages: Iterable[Package]) -> str:
    """Return a hash of packages, for the inputs of a step.

    Where a mirror has them does not count.
    """
    return hashlib.sha256(json.dumps(sorted((one.key, one.sha256) for one in packages)).encode()).hexdigest()
