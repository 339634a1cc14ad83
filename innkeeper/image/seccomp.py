"""Resolve seccomp profiles to the flat `linux.seccomp` of the OCI specification.

A profile is the default one or a file in docker's format. Both have conditions on capabilities,
architecture and kernel (docker's are `includes` and `excludes`). The host resolves them against the
container's bounding set, the guest's architecture and its kernel, and the guest sees plain rules.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from innkeeper.errors import InnkeeperError
from innkeeper.image.seccomp_default import default_profile

GUEST_KERNEL = (6, 12)
"""(major, minor) of the guest's kernel, for conditions on it."""
PROFILE_MAX = 4 << 20
"""Bytes of the largest profile to read."""

_ARCHITECTURES = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}
_TOP_KEYS = {"defaultAction", "defaultErrnoRet", "architectures", "archMap", "flags", "syscalls", "listenerPath", "listenerMetadata"}
_RULE_KEYS = {"name", "names", "action", "errnoRet", "args", "comment", "includes", "excludes"}
_CONDITION_KEYS = {"caps", "arches", "minKernel"}
_EPERM = 1


def load_profile(
    path: Path | None, bounding: Sequence[str], *, machine: str | None = None, kernel: tuple[int, int] = GUEST_KERNEL
) -> dict[str, object]:
    """Read a profile (None: the default) and resolve it for a container.

    `bounding` is the container's bounding set. `machine` is a name as in uname(2), this host's by
    default. Raises InnkeeperError, which names the file and the key.
    """
    machine = machine or platform.machine()
    return default_profile(bounding, machine, kernel) if path is None else _load_file(path, bounding, machine, kernel)


def _load_file(file: Path, bounding: Sequence[str], machine: str, kernel: tuple[int, int]) -> dict[str, object]:
    """Read a profile in docker's format and resolve it. Every error names the file."""
    try:
        if file.stat().st_size > PROFILE_MAX:
            raise InnkeeperError(f"seccomp profile {file}: larger than {PROFILE_MAX} bytes")
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise InnkeeperError(f"seccomp profile {file}: {error.strerror}") from error
    except ValueError as error:
        raise InnkeeperError(f"seccomp profile {file}: not JSON: {error}") from error
    try:
        return resolve_profile(document, bounding, machine, kernel)
    except _Bad as error:
        raise InnkeeperError(f"seccomp profile {file}: {error}") from error


class _Bad(Exception):
    """A mistake in a profile."""


def resolve_profile(document: object, bounding: Sequence[str], machine: str, kernel: tuple[int, int]) -> dict[str, object]:
    """Return the flat form of a docker-style profile.

    Conditions and their order are those of moby profiles/seccomp.
    """
    top = _object(document, "profile", _TOP_KEYS)
    if "defaultAction" not in top:
        raise _Bad("no defaultAction")
    goarch, native = _ARCHITECTURES.get(machine, (machine, ""))
    flat: dict[str, object] = {"defaultAction": top["defaultAction"]}
    if top.get("defaultErrnoRet") not in (None, _EPERM):  # 1 is the action's default
        flat["defaultErrnoRet"] = top["defaultErrnoRet"]
    if architectures := _architectures(top, native):
        flat["architectures"] = architectures
    for key in ("flags", "listenerPath", "listenerMetadata"):
        if key in top:
            flat[key] = top[key]
    rules = []
    for index, entry in enumerate(_list(top.get("syscalls"), "syscalls")):
        where = f"syscalls[{index}]"
        rule = _object(entry, where, _RULE_KEYS)
        includes = _object(rule.get("includes") or {}, f"{where}.includes", _CONDITION_KEYS)
        excludes = _object(rule.get("excludes") or {}, f"{where}.excludes", _CONDITION_KEYS)
        if _included(includes, bounding, goarch, kernel) and not _excluded(excludes, bounding, goarch, kernel):
            rules.append(_flat_rule(rule, where))
    flat["syscalls"] = rules
    return flat


def _architectures(top: Mapping[str, object], native: str) -> list[object]:
    """Return the ABIs of the profile: those of `archMap` for this machine, else `architectures`."""
    if top.get("architectures") and top.get("archMap"):
        raise _Bad("both architectures and archMap")
    for entry in _list(top.get("archMap"), "archMap"):
        mapping = _object(entry, "archMap", {"architecture", "subArchitectures"})
        if mapping.get("architecture") == native:
            return [native, *_list(mapping.get("subArchitectures"), "subArchitectures")]
    return list(_list(top.get("architectures"), "architectures"))


def _flat_rule(rule: Mapping[str, object], where: str) -> dict[str, object]:
    """Return a rule without its conditions."""
    if rule.get("name") and rule.get("names"):
        raise _Bad(f"{where}: both name and names")
    names = [rule["name"]] if rule.get("name") else _list(rule.get("names"), f"{where}.names")
    flat: dict[str, object] = {"names": list(names), "action": rule.get("action")}
    if not names or not all(isinstance(name, str) and name for name in names) or not isinstance(flat["action"], str):
        raise _Bad(f"{where}: names or action missing")
    for key in ("errnoRet", "args"):
        if rule.get(key) not in (None, []):
            flat[key] = rule[key]
    return flat


def _included(condition: Mapping[str, object], bounding: Sequence[str], arch: str, kernel: tuple[int, int]) -> bool:
    """Return whether `includes` hold: one of the arches, all caps, and at least the kernel."""
    arches, caps = _list(condition.get("arches"), "arches"), _list(condition.get("caps"), "caps")
    if (arches and arch not in arches) or not all(cap in bounding for cap in caps):
        return False
    return "minKernel" not in condition or kernel >= _version(condition["minKernel"])


def _excluded(condition: Mapping[str, object], bounding: Sequence[str], arch: str, kernel: tuple[int, int]) -> bool:
    """Return whether `excludes` hold: one of the arches, one of the caps, at least the kernel."""
    if arch in _list(condition.get("arches"), "arches") or any(cap in bounding for cap in _list(condition.get("caps"), "caps")):
        return True
    return "minKernel" in condition and kernel >= _version(condition["minKernel"])


def _version(text: object) -> tuple[int, int]:
    try:
        major, minor = str(text).split(".")[:2]
        return int(major), int(minor)
    except ValueError:
        raise _Bad(f"minKernel {text!r} is not a version") from None


def _object(value: object, where: str, keys: set[str]) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _Bad(f"{where}: not an object")
    if unknown := sorted(set(value) - keys):
        raise _Bad(f"{where}: unknown key {unknown[0]}")
    return value


def _list(value: object, where: str) -> Sequence[object]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _Bad(f"{where}: not a list")
    return value
