"""`hooks` of the specification: programs that run at six points of a container's life.

agent.container.hooks runs them.
"""

from dataclasses import dataclass

from agent.container.spec.reader import SpecReader, absolute
from agent.errors import Refused

TIMEOUT_MAX = (1 << 31) - 1
"""Seconds."""
# The specification's names, in the order of a container's life -> the fields of `Hooks`.
KINDS = {
    "prestart": "prestart",
    "createRuntime": "create_runtime",
    "createContainer": "create_container",
    "startContainer": "start_container",
    "poststart": "poststart",
    "poststop": "poststop",
}


@dataclass(frozen=True, slots=True)
class Hook:
    """One program. `field` is its path in the document.

    `env` is None if it is absent. `timeout` is in seconds, None for no timeout.
    """

    field: str
    path: str
    args: tuple[str, ...]
    env: tuple[str, ...] | None
    timeout: int | None


@dataclass(frozen=True, slots=True)
class Hooks:
    """The programs of each point, in their order."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


NO_HOOKS = Hooks()


def parse_hooks(reader: SpecReader | None) -> Hooks:
    """Return `hooks` as an object. Raises Refused."""
    if reader is None:
        return NO_HOOKS
    hooks = Hooks(**{field: tuple([_hook(hook) for hook in reader.children(kind)]) for kind, field in KINDS.items()})
    reader.finish()
    return hooks


def _hook(reader: SpecReader) -> Hook:
    path = absolute(reader.string("path"), reader.name("path"))
    env = reader.strings("env") if reader.has("env") else None
    for index, entry in enumerate(env or ()):
        if not entry.partition("=")[0] or "=" not in entry:
            raise Refused(reader.name(f"env[{index}]"), f"{entry[:64]!r} is not NAME=VALUE")
    hook = Hook(reader.path, path, reader.strings("args") or (path,), env, reader.optional("timeout", 1, TIMEOUT_MAX))
    reader.finish()
    return hook
