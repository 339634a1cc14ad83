"""Image references, and the skopeo sources that they may stand for.

A reference with a transport (containers-transports(5)) is used as it is. A bare name is looked up
in local containers-storage first, then in the registries that the host's
containers-registries.conf(5) lists for it.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from innkeeper.errors import InnkeeperError

TRANSPORTS = ("oci", "oci-archive", "docker-archive", "containers-storage", "dir", "docker-daemon")
_FILES = ("oci", "oci-archive", "docker-archive", "dir")
_PART = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*(?::[\w][\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?", re.ASCII)
_QUALIFIED = re.compile(r"(?:localhost|\[[0-9a-f:]+\]|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9.-]+(?=:[0-9]))(?::[0-9]+)?/")


def has_transport(reference: str) -> bool:
    """Return whether `reference` names its transport (`oci:...`, `docker://...`)."""
    return reference.startswith(("docker://", *(f"{name}:" for name in TRANSPORTS)))


def check_transport(reference: str) -> str:
    """Return `reference`, which has a transport, in skopeo's form.

    Raises InnkeeperError with the path if the file does not exist.
    """
    transport, _, rest = reference.partition(":")
    if transport in _FILES:
        path = rest if transport == "dir" or os.path.exists(rest) else rest.split(":", 1)[0]
        if not os.path.exists(path):
            raise InnkeeperError(f"image {reference}: no such file: {path}")
    return reference


def check_name(name: str) -> None:
    """Raise InnkeeperError for a bare name that no image can have."""
    qualified = _QUALIFIED.match(name)
    if _NAME.fullmatch(name[qualified.end() :] if qualified else name) is None:
        hint = f"use NAME[:TAG], or a transport: {', '.join(TRANSPORTS)}, docker://"
        raise InnkeeperError(f"image {name}: not a valid image name", hint=hint)


def remote_candidates(name: str) -> list[str]:
    """Return the `docker://` sources that a bare name may stand for, in the order to try them.

    Raises InnkeeperError if there are none, or if the choice is ambiguous in enforcing mode.
    """
    if _QUALIFIED.match(name):
        return [f"docker://{name}"]
    registries = read_registries()
    short, tail = _split_tag(name)
    if alias := registries.aliases.get(short):
        return [f"docker://{alias}{tail}"]
    if registries.mode == "enforcing" and len(registries.search) > 1:
        choices = ", ".join(f"{registry}/{name}" for registry in registries.search)
        raise InnkeeperError(f"image {name}: the short name is ambiguous", hint=f"use one of: {choices}")
    if not registries.search:
        raise InnkeeperError(
            f"image {name}: not in local storage, and no registry is configured for short names",
            hint=f"name the registry, like docker://docker.io/library/{name}",
        )
    return [f"docker://{registry}/{name}" for registry in registries.search]


@dataclass
class Registries:
    """The settings for short names in registries.conf."""

    search: list[str] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    mode: str = "permissive"


def read_registries() -> Registries:
    """Read registries.conf, its drop-ins, and the aliases that podman recorded.

    The user's file takes the place of the system's.
    """
    import tomllib  # for short names only

    found = Registries()
    for path in _configuration_files():
        try:
            with path.open("rb") as file:
                document = tomllib.load(file)
        except FileNotFoundError:
            continue
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise InnkeeperError(f"{path}: {error}") from error
        if "unqualified-search-registries" in document:
            found.search = [str(entry) for entry in document["unqualified-search-registries"]]
        found.mode = document.get("short-name-mode") or found.mode
        found.aliases.update({str(name): str(value) for name, value in document.get("aliases", {}).items()})
    return found


def _configuration_files() -> list[Path]:
    """Return the configuration files in the order to read them.

    Later ones override earlier ones.
    """
    home = Path(os.path.expanduser("~"))
    user = home / ".config/containers"
    if own := os.environ.get("CONTAINERS_REGISTRIES_CONF"):
        files = [Path(own)]
    else:
        main = user / "registries.conf"
        files = [main if main.exists() else Path("/etc/containers/registries.conf")]
        for folder in (Path("/etc/containers/registries.conf.d"), user / "registries.conf.d"):
            files += sorted(folder.glob("*.conf"))
    recorded = Path("/var/cache/containers") if os.geteuid() == 0 else home / ".cache/containers"
    return [*files, recorded / "short-name-aliases.conf"]


def _split_tag(name: str) -> tuple[str, str]:
    cut = min((place for place in (name.find(":"), name.find("@")) if place >= 0), default=len(name))
    return name[:cut], name[cut:]
