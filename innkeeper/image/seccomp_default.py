"""Resolve the default seccomp profile, `seccomp_default.toml`, for one container.

The result is the flat `linux.seccomp` of the OCI specification. The file explains its fields.
Groups with the same answer and condition become one rule, to keep the message to the guest small.
"""

import errno
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from innkeeper.errors import InnkeeperError

FILE = Path(__file__).with_name("seccomp_default.toml")
ALLOW = "allow"
DEFAULT = "EPERM"
"""The meaning of SCMP_ACT_ERRNO without a number.

The message for the agent has no field for another default.
"""

Comparison = tuple[int, str, int]
"""(index of an argument, operator, value)."""


@dataclass(frozen=True)
class Group:
    """Calls on one topic, as in the file.

    `comparisons` are alternatives. If there are none, any argument matches.
    """

    topic: str
    reason: str
    calls: tuple[str, ...]
    answer: str
    machines: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    unless: str = ""
    kernel: tuple[int, int] = (0, 0)
    comparisons: tuple[Comparison, ...] = ()

    def binds(self, bounding: Sequence[str], machine: str, kernel: tuple[int, int]) -> bool:
        """Return whether the group applies to this bounding set, machine and kernel."""
        if self.machines and machine not in self.machines:
            return False
        if self.capabilities and not set(self.capabilities) & set(bounding):
            return False
        return self.unless not in bounding and kernel >= self.kernel


@dataclass(frozen=True)
class Profile:
    """The content of the file.

    `machines` maps uname's name of a machine to its ABIs, the native one first.
    """

    machines: Mapping[str, tuple[str, ...]]
    groups: tuple[Group, ...]


@cache
def read_profile() -> Profile:
    """Return the content of the file.

    Raises KeyError, TypeError or ValueError if the file does not match its own description.
    """
    document = tomllib.loads(FILE.read_text())
    if document["default"] != DEFAULT:
        raise ValueError(f"{FILE.name}: default is not {DEFAULT}")
    machines = {entry["name"]: tuple(entry["architectures"]) for entry in document["machine"]}
    return Profile(machines, tuple([_group(**entry) for entry in document["group"]]))


def default_profile(bounding: Sequence[str], machine: str, kernel: tuple[int, int]) -> dict[str, object]:
    """Return `linux.seccomp` for a container with the bounding set `bounding`.

    Raises InnkeeperError for a machine without a profile.
    """
    profile = read_profile()
    if machine not in profile.machines:
        raise InnkeeperError(f"no default seccomp profile for {machine}: name one with --security-opt seccomp=FILE")
    names: dict[tuple[str, Comparison | None], set[str]] = {}
    for group in profile.groups:
        if group.answer != DEFAULT and group.binds(bounding, machine, kernel):
            for comparison in group.comparisons or (None,):
                names.setdefault((group.answer, comparison), set()).update(group.calls)
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": list(profile.machines[machine]),
        "syscalls": [_rule(sorted(calls), *condition) for condition, calls in names.items()],
    }


def _group(*, kernel: str = "0.0", argument: Mapping[str, Any] | None = None, **fields: Any) -> Group:
    major, minor = kernel.split(".")
    listed: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return Group(**listed, kernel=(int(major), int(minor)), comparisons=tuple(_comparisons(**argument)) if argument else ())


def _comparisons(*, index: int, below: int | None = None, equal: Sequence[int] = (), without: int | None = None) -> Iterator[Comparison]:
    if below is not None:
        yield index, "SCMP_CMP_LT", below
    for value in equal:
        yield index, "SCMP_CMP_EQ", value
    if without is not None:  # (argument & this) must equal `valueTwo`, which is 0
        yield index, "SCMP_CMP_MASKED_EQ", without


def _rule(names: list[str], answer: str, comparison: Comparison | None) -> dict[str, object]:
    rule: dict[str, object] = {"names": names, "action": "SCMP_ACT_ALLOW"}
    if answer != ALLOW:
        rule |= {"action": "SCMP_ACT_ERRNO", "errnoRet": getattr(errno, answer)}
    if comparison is not None:
        index, operator, value = comparison
        rule["args"] = [{"index": index, "value": value, "op": operator}]
    return rule
