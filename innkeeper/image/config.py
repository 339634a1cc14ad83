"""The part of an image's config that is needed to run the image.

See OCI image-spec 1.1 `config.md`. Docker's v2 config is the same.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

from innkeeper.errors import InnkeeperError

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""The names of an image's platform by those of uname(2)."""


@dataclass(frozen=True)
class ImageConfig:
    """The parsed config of an image.

    `volumes` are paths that docker gives a volume of their own. Here writes to them go to the
    scratch disk like all others.
    """

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    exposed_ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


def parse_config(document: object, architecture: str = "") -> ImageConfig:
    """Parse an image config.

    `architecture` is the guest's, as uname(2) has it, or empty for this host's. Raises
    InnkeeperError for an image of another platform and for values of the wrong type.
    """
    top = _mapping(document, "config")
    system, machine = top.get("os", ""), top.get("architecture", "")
    ours = ARCHITECTURES.get(architecture or platform.machine(), platform.machine())
    if system not in ("", "linux") or machine not in ("", ours):
        raise InnkeeperError(f"the image is for {system}/{machine}, the guest is linux/{ours}")
    inner = _mapping(top.get("config"), "config.config")
    return ImageConfig(
        entrypoint=_command(inner, "Entrypoint"),
        cmd=_command(inner, "Cmd"),
        env=_strings(inner, "Env"),
        user=_string(inner, "User"),
        working_dir=_string(inner, "WorkingDir"),
        volumes=tuple(sorted(_mapping(inner.get("Volumes"), "Volumes"))),
        stop_signal=_string(inner, "StopSignal"),
        exposed_ports=tuple(sorted(_mapping(inner.get("ExposedPorts"), "ExposedPorts"))),
        labels={key: str(value) for key, value in _mapping(inner.get("Labels"), "Labels").items()},
    )


def _mapping(value: object, name: str) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InnkeeperError(f"the image's {name} is not an object")
    return value


def _string(inner: Mapping[str, object], name: str) -> str:
    value = inner.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InnkeeperError(f"the image's {name} is not a string")
    return value


def _command(inner: Mapping[str, object], name: str) -> tuple[str, ...]:
    """Return a command line as a list of words.

    A single string is a list of one word, as docker reads it. `[""]` is docker's way to write an
    empty entrypoint.
    """
    words = (_string(inner, name),) if isinstance(inner.get(name), str) else _strings(inner, name)
    return () if name == "Entrypoint" and words == ("",) else words


def _strings(inner: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = inner.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise InnkeeperError(f"the image's {name} is not a list of strings")
    return tuple(value)
