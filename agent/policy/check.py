"""Checking a request against a policy, before the request is acted on.

A policy is for a host that is not trusted, so the check must see a request as the code that carries
it out will see it. Paths are normalised before they are compared, the kind of a mount is derived as
the container's code derives it, and a rule that could be evaded by another part of the request
brings a default for that part (FOLLOWS).
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError
from agent.policy.parser import MountPattern, Policy
from innkeeper.wire import status

if TYPE_CHECKING:
    from innkeeper.wire.pb import agent_pb2, guest_pb2, oci_pb2

WIDTH = 160
REST = "**"
"""As the last word of a command pattern: matches any further words, or none."""
IMAGE_ANNOTATIONS = ("io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName", "io.kubernetes.cri.sandbox-image-name")
NO_IMAGE = "(none)"
"""The image name that is checked if a container's annotations name no image."""
BY_NAME_ONLY = ("SetPolicy", "innkeeper.v1.Guest/StartShell")
"""Methods that must be listed by name. A pattern such as `*` must not allow a host to replace the
policy or to bypass it with a shell in the guest."""
FOLLOWS: "Mapping[str, tuple[str, tuple[str, ...]]]" = {
    "hooks": ("commands", ()),
    "namespaces": ("mounts", ()),
    "roots": ("mounts", ("/run/kata-containers/*",)),
}
"""Rule -> (another rule that could be bypassed without it, the entries allowed by default).

The default applies if the policy has the other rule but not this one. For example a policy that
limits `commands` allows no hooks, because a hook runs a command too.
"""
LAYER_WORD, VERIFIED, ROOT_HASH = "X-kata.overlay-lower", "X-kata.dmverity-enabled=true", "X-kata.dmverity.roothash="


class Denied(AgentError):
    """A request that a policy does not allow.

    The message has at most three lines: the rule, what was asked, and what is allowed.
    """

    code = status.PERMISSION_DENIED

    def __init__(self, method: str, policy: Policy, rule: str, asked: str, allowed: Iterable[str]) -> None:
        name = f" of policy {policy.name!r}" if policy.name else ""
        lines = (
            f"{method} is blocked by policy: rule {rule!r}{name}",
            f"asked:   {asked}",
            f"allowed: {' | '.join(allowed) or 'nothing'}",
        )
        super().__init__("\n".join(_short(line) for line in lines))
        self.rule = rule


def _short(line: str) -> str:
    """Return the line cut to WIDTH characters, with unprintable characters replaced."""
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."


def check(policy: Policy, service: str, method: str, request: Any) -> None:
    """Raise Denied if `policy` does not allow the request.

    In the rule `rpcs` methods of services other than Kata's are named SERVICE/METHOD.
    """
    name = method if service == "grpc.AgentService" else f"{service}/{method}"
    _check_method(policy, name)
    for rule, asked in PARTS.get(name, {}).items():
        allowed = _rule(policy, rule)
        if allowed is None:
            continue
        for thing, words in asked(request):
            if not any(_matches(thing, entry) for entry in allowed):
                raise Denied(name, policy, rule, words, map(_show, allowed))


def _check_method(policy: Policy, name: str) -> None:
    if policy.rpcs is None:
        if name in BY_NAME_ONLY:
            raise Denied(name, policy, "rpcs", name, (f"every method but {' and '.join(BY_NAME_ONLY)}",))
        return
    if not any(name == entry or (name not in BY_NAME_ONLY and fnmatchcase(name, entry)) for entry in policy.rpcs):
        raise Denied(name, policy, "rpcs", name, policy.rpcs)


def _rule(policy: Policy, rule: str) -> "tuple[Any, ...] | None":
    """Return the entries of a rule or its default (FOLLOWS), or None if it does not limit."""
    entries: tuple[Any, ...] | None = getattr(policy, rule)
    if entries is None and rule in FOLLOWS:
        leader, allowed = FOLLOWS[rule]
        return allowed if getattr(policy, leader) is not None else None
    return entries


def _matches(thing: Any, entry: Any) -> bool:
    if isinstance(entry, MountPattern):
        return _mount_matches(thing, entry)
    if isinstance(entry, tuple):
        return _command_matches(thing, entry)
    return fnmatchcase(thing, entry)


def _mount_matches(thing: MountPattern, entry: MountPattern) -> bool:
    if entry.read_only and not thing.read_only:
        return False
    pairs = ((thing.destination, entry.destination), (thing.source, entry.source), (thing.type, entry.type))
    return all(pattern is None or fnmatchcase(value or "", pattern) for value, pattern in pairs)


def _command_matches(words: tuple[str, ...], entry: tuple[str, ...]) -> bool:
    if entry[-1] == REST:
        entry = entry[:-1]
        words = words[: len(entry)]
    return len(words) == len(entry) and all(fnmatchcase(word, pattern) for word, pattern in zip(words, entry, strict=True))


def _show(entry: Any) -> str:
    if isinstance(entry, tuple):
        return " ".join(entry)
    if isinstance(entry, MountPattern):
        given = ((word, getattr(entry, word)) for word in ("destination", "source", "type"))
        return " ".join([f"{word}={value}" for word, value in given if value is not None] + ["read_only"] * entry.read_only)
    return str(entry)


# The functions below extract from a request what a rule checks. They yield pairs: the value to
# match, and the text that a denial shows for it.

Asked = Iterator[tuple[Any, str]]


def _image(request: "agent_pb2.CreateContainerRequest") -> Asked:
    annotations = request.OCI.Annotations
    image = next((annotations[key] for key in IMAGE_ANNOTATIONS if annotations.get(key)), NO_IMAGE)
    yield image, image


def _layers(request: "agent_pb2.CreateContainerRequest") -> Asked:
    """Yield the dm-verity root hash of each layer.

    A layer that is not verified has the value "", which only the pattern `*` matches.
    """
    for storage in request.storages:
        options = [word for option in storage.options for word in option.split(",")]
        hashes = [word.removeprefix(ROOT_HASH) for word in options if word.startswith(ROOT_HASH)]
        if LAYER_WORD in options or hashes:
            verified = hashes[-1] if hashes and VERIFIED in options else ""
            yield verified, verified or f"{storage.source} without verification"


def _mounts(request: "agent_pb2.CreateContainerRequest") -> Asked:
    for mount in request.OCI.Mounts:
        read_only = "ro" in mount.options and "rw" not in mount.options
        kind = mount.type or ("bind" if {"bind", "rbind"} & set(mount.options) else "")
        if {"bind", "rbind"} & set(mount.options):
            kind = "bind"  # these options decide in the container's code too, not the type
        asked = MountPattern(_normalized(mount.destination), _normalized(mount.source), kind, read_only)
        yield asked, _show(asked)


def _storages(request: "agent_pb2.CreateContainerRequest | agent_pb2.CreateSandboxRequest") -> Asked:
    for storage in request.storages:
        words = [word for option in storage.options for word in option.split(",")]
        asked = MountPattern(
            _normalized(storage.mount_point), _normalized(storage.source), storage.driver, "ro" in words and "rw" not in words
        )
        yield asked, _show(asked)


def _normalized(path: str) -> str:
    """Return an absolute path without `.`, `..` and double slashes. A trailing slash is kept.

    A pattern is thus matched against the path that will be used: `/run/kata-containers/../../etc`
    does not match `/run/kata-containers/*`.
    """
    if not path.startswith("/"):
        return path
    return os.path.normpath(path) + ("/" if path.endswith("/") and path != "/" else "")


def _root(request: "agent_pb2.CreateContainerRequest") -> Asked:
    path = _normalized(request.OCI.Root.Path)
    yield path, path


def _namespaces(request: "agent_pb2.CreateContainerRequest") -> Asked:
    for namespace in request.OCI.Linux.Namespaces:
        if namespace.Path:
            yield namespace.Path, f"{namespace.Type} {namespace.Path}"


def _capabilities_of(process: "oci_pb2.Process") -> Asked:
    held = process.Capabilities
    for name in dict.fromkeys((*held.Bounding, *held.Effective, *held.Inheritable, *held.Permitted, *held.Ambient)):
        yield name, name


def _container_capabilities(request: "agent_pb2.CreateContainerRequest") -> Asked:
    return _capabilities_of(request.OCI.Process)


def _exec_capabilities(request: "agent_pb2.ExecProcessRequest") -> Asked:
    return _capabilities_of(request.process)


def _container_command(request: "agent_pb2.CreateContainerRequest") -> Asked:
    yield tuple(request.OCI.Process.Args), " ".join(request.OCI.Process.Args)


def _exec_command(request: "agent_pb2.ExecProcessRequest") -> Asked:
    yield tuple(request.process.Args), " ".join(request.process.Args)


def _hooks(request: "agent_pb2.CreateContainerRequest") -> Asked:
    hooks = request.OCI.Hooks
    for kind in (hooks.Prestart, hooks.CreateRuntime, hooks.CreateContainer, hooks.StartContainer, hooks.Poststart, hooks.Poststop):
        for hook in kind:
            yield hook.Path, hook.Path


def _guest_hooks(request: "agent_pb2.CreateSandboxRequest") -> Asked:
    if request.guest_hook_path:
        yield request.guest_hook_path, request.guest_hook_path


def _devices(request: "agent_pb2.CreateContainerRequest") -> Asked:
    for path in (*(device.container_path for device in request.devices), *(device.Path for device in request.OCI.Linux.Devices)):
        yield path, path


def _file(request: "agent_pb2.CopyFileRequest | guest_pb2.RemoveFileRequest") -> Asked:
    yield request.path, request.path


PARTS: Mapping[str, Mapping[str, Callable[[Any], Asked]]] = {
    "CreateSandbox": {"storages": _storages, "hooks": _guest_hooks},
    "CreateContainer": {
        "images": _image,
        "layers": _layers,
        "storages": _storages,
        "mounts": _mounts,
        "capabilities": _container_capabilities,
        "commands": _container_command,
        "hooks": _hooks,
        "roots": _root,
        "namespaces": _namespaces,
        "devices": _devices,
    },
    "ExecProcess": {"capabilities": _exec_capabilities, "exec": _exec_command},
    "UpdateEphemeralMounts": {"storages": _storages},
    "CopyFile": {"files": _file},
    "innkeeper.v1.Guest/RemoveFile": {"files": _file},
}
"""Method -> rule -> function that extracts what the rule checks. A test makes sure that the table
has every rule, and every part of a request that a rule is about."""
