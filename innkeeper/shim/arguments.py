"""The shim's command line as containerd writes it: options in the style of Go, an action."""

from collections.abc import Sequence
from dataclasses import dataclass

FLAGS = {"debug": "debug", "info": "info", "v": "version"}
"""Options without a value."""
VALUES = {
    "namespace": "namespace",
    "address": "address",
    "publish-binary": "publish_binary",
    "id": "id",
    "bundle": "bundle",
    "socket": "socket",
}
"""Options with a value."""


class UsageError(Exception):
    """A command line that is not containerd's."""


@dataclass(frozen=True)
class Arguments:
    """The options, and the action: start, delete, or empty."""

    namespace: str = ""
    address: str = ""
    publish_binary: str = ""
    id: str = ""
    bundle: str = ""
    socket: str = ""
    debug: bool = False
    info: bool = False
    version: bool = False
    action: str = ""


def parse(words: Sequence[str]) -> Arguments:
    """Return the arguments. Raises UsageError for an option that is not known."""
    found: dict[str, str | bool] = {}
    rest = list(words)
    while rest and rest[0].startswith("-"):
        name, equals, value = rest.pop(0).lstrip("-").partition("=")
        if name in FLAGS:
            found[FLAGS[name]] = not equals or value == "true"
        elif name in VALUES:
            if not equals and not rest:
                raise UsageError(f"option -{name} needs a value")
            found[VALUES[name]] = value if equals else rest.pop(0)
        else:
            raise UsageError(f"unknown option -{name}")
    if len(rest) > 1 or (rest and rest[0] not in ("start", "delete")):
        raise UsageError(f"unknown action {' '.join(rest)}")
    return Arguments(**found, action=rest[0] if rest else "")  # type: ignore[arg-type]
