"""Kernel configuration fragments: parse them, merge them, and check the resulting configuration.

A fragment is a file in `kernel-config/`: comment lines that say why it exists, then lines like

    CONFIG_EROFS_FS=y                     # contract: our root, OCI images

Values are written as in a `.config` (`y`, a number, a quoted string). `n` says that a symbol must
stay off. Every symbol has a reason, and it occurs once in all fragments, so that there is one place
to look.

A symbol that only some kernel versions have says so before its reason, with `[since 6.5]`,
`[before 6.9]`, or `[since 6.5, before 6.9]`. For other versions the line does not count.
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from innkeeper.errors import InnkeeperError

_LINE = re.compile(r'CONFIG_(?P<symbol>[A-Z0-9a-z_]+)=(?P<value>"[^"]*"|[^\s#]+)\s*(?:#\s*(?P<reason>\S.*))?')
_VALUE = re.compile(r'y|n|-?[0-9]+|0x[0-9a-fA-F]+|"[^"]*"')
_RANGE = re.compile(r"\[(?:since (?P<since>\d+\.\d+)(?:, (?=before)|(?=\])))?(?:before (?P<before>\d+\.\d+))?\] (?P<reason>\S.*)")
_SET = re.compile(r"CONFIG_([A-Z0-9a-z_]+)=(.*)")


Version: TypeAlias = tuple[int, int]
"""A kernel series, for example (6, 12)."""
ALL_SINCE: Version = (0, 0)
ALL_BEFORE: Version = (sys.maxsize, 0)
"""The range of versions of a symbol that every version has."""


@dataclass(frozen=True)
class Setting:
    """A symbol with the value that a fragment requests.

    `symbol` has no `CONFIG_` prefix. `where` is `file:line`. The symbol belongs to the kernel
    versions from `since` on, up to but without `before`.
    """

    symbol: str
    value: str
    reason: str
    where: str
    since: Version = ALL_SINCE
    before: Version = ALL_BEFORE


@dataclass(frozen=True)
class Lost:
    """A symbol whose value in the kernel's configuration differs from the requested one."""

    setting: Setting
    got: str

    def __str__(self) -> str:
        return f"CONFIG_{self.setting.symbol}: wanted {self.setting.value}, got {self.got} ({self.setting.where})"


def parse_fragment(text: str, name: str) -> list[Setting]:
    """Parse the fragment called `name` and return its settings.

    Raises InnkeeperError that lists all faults, one per line.
    """
    lines = text.splitlines()
    faults: list[str] = []
    if not lines or not lines[0].startswith("# "):
        faults.append(f"{name}:1: a fragment opens with a comment that says why it is there")
    settings: list[Setting] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        where = f"{name}:{number}"
        match = _LINE.fullmatch(line.rstrip())
        if match is None or _VALUE.fullmatch(match["value"]) is None:
            faults.append(f"{where}: not of the form CONFIG_NAME=value  # reason: {line.strip()}")
        elif match["reason"] is None:
            faults.append(f"{where}: CONFIG_{match['symbol']} has no reason")
        elif (setting := _setting(match["symbol"], match["value"], match["reason"], where)) is None:
            faults.append(f"{where}: not of the form [since VERSION, before VERSION] reason: {match['reason']}")
        else:
            settings.append(setting)
    _refuse("kernel configuration fragment is malformed", faults)
    return settings


def parse_version(text: str) -> Version:
    """Return the series of a kernel version: `6.12` and `6.12.118` are both (6, 12)."""
    major, minor, *_ = text.split(".")
    return int(major), int(minor)


def _setting(symbol: str, value: str, reason: str, where: str) -> Setting | None:
    """Return the setting of a line, or None if its range of versions is malformed or empty."""
    if not reason.startswith("["):
        return Setting(symbol, value, reason, where)
    match = _RANGE.fullmatch(reason)
    if match is None or not (match["since"] or match["before"]):
        return None
    bounds = {name: parse_version(match[name]) for name in ("since", "before") if match[name]}
    setting = Setting(symbol, value, match["reason"], where, **bounds)
    return setting if setting.since < setting.before else None


def merge(fragments: Iterable[Iterable[Setting]]) -> dict[str, Setting]:
    """Return all settings by symbol.

    Raises InnkeeperError if a symbol occurs twice, with both places.
    """
    merged: dict[str, Setting] = {}
    faults: list[str] = []
    for setting in (setting for fragment in fragments for setting in fragment):
        first = merged.setdefault(setting.symbol, setting)
        if first is setting:
            continue
        both = f"CONFIG_{setting.symbol}={first.value} ({first.where}) and ={setting.value} ({setting.where})"
        faults.append(f"{'duplicate' if first.value == setting.value else 'conflict'}: {both}")
    _refuse("kernel configuration fragments disagree", faults)
    return merged


def read_fragments(folder: Path, architecture: str, version: Version, extra: Sequence[Path] = ()) -> dict[str, Setting]:
    """Return the merged settings of all fragments that count for a kernel `version`.

    These are the fragments in `folder` for all architectures, those in the subfolder of
    `architecture`, and the files `extra`. Raises InnkeeperError if that subfolder has no fragments.
    """
    paths = [*sorted(folder.glob("*.conf")), *sorted((folder / architecture).glob("*.conf"))]
    if not any(path.parent.name == architecture for path in paths):
        raise InnkeeperError(f"no kernel configuration fragments for {architecture} in {folder}")
    parsed = [parse_fragment(path.read_text(), str(path.relative_to(folder))) for path in paths]
    parsed += [parse_fragment(path.read_text(), str(path)) for path in extra]
    return merge([setting for setting in fragment if setting.since <= version < setting.before] for fragment in parsed)


def as_config(settings: Mapping[str, Setting]) -> str:
    """Return the settings in the format of KCONFIG_ALLCONFIG, without comments.

    They are sorted by symbol, so that the order of files and lines does not matter.
    """
    return "".join(f"CONFIG_{symbol}={settings[symbol].value}\n" for symbol in sorted(settings))


def parse_config(text: str) -> dict[str, str]:
    """Return the symbols and values of a `.config`. Symbols that are not set are not included."""
    return {match[1]: match[2] for match in map(_SET.fullmatch, text.splitlines()) if match}


def lost(settings: Mapping[str, Setting], config: Mapping[str, str]) -> list[Lost]:
    """Return the settings that the final configuration does not contain.

    A dependency is missing, the symbol was renamed, or another symbol overrules it.
    """
    return [
        Lost(setting, config.get(setting.symbol, "n")) for setting in settings.values() if config.get(setting.symbol, "n") != setting.value
    ]


def check(settings: Mapping[str, Setting], config: Mapping[str, str]) -> None:
    """Raise InnkeeperError if settings were lost, with symbol, wanted and actual value of each."""
    hint = "a dependency is missing, the symbol has another name in this version, or another symbol overrules it"
    _refuse("kernel configuration did not survive olddefconfig", map(str, lost(settings, config)), hint=hint)


def _refuse(title: str, faults: Iterable[str], *, hint: str | None = None) -> None:
    if listed := list(faults):
        raise InnkeeperError("\n  ".join([f"{title}:", *listed]), hint=hint)
