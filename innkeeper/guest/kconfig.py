"""Kernel configuration fragments: reading them, putting them together, checking what became of them.

A fragment is a file of `kernel-config/`: comment lines that say why it is there, then lines like

    CONFIG_EROFS_FS=y                     # contract: our root, OCI images

Values are written as in a `.config` (`y`, a number, a quoted string); `n` says that a symbol must stay off. Every symbol has
its reason, and each is named once in all fragments, so that there is one place to look.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from innkeeper.errors import InnkeeperError

_LINE = re.compile(r'CONFIG_(?P<symbol>[A-Z0-9a-z_]+)=(?P<value>"[^"]*"|[^\s#]+)\s*(?:#\s*(?P<reason>\S.*))?')
_VALUE = re.compile(r'y|n|-?[0-9]+|0x[0-9a-fA-F]+|"[^"]*"')
_SET = re.compile(r"CONFIG_([A-Z0-9a-z_]+)=(.*)")


@dataclass(frozen=True)
class Setting:
    """One symbol as a fragment asks for it; `symbol` without the `CONFIG_` prefix, `where` as `file:line`."""

    symbol: str
    value: str
    reason: str
    where: str


@dataclass(frozen=True)
class Lost:
    """A symbol that the kernel's configuration does not have as asked."""

    setting: Setting
    got: str

    def __str__(self) -> str:
        return f"CONFIG_{self.setting.symbol}: wanted {self.setting.value}, got {self.got} ({self.setting.where})"


def parse_fragment(text: str, name: str) -> list[Setting]:
    """The settings of one fragment called `name`. Raises InnkeeperError with all that is wrong in it, a line each."""
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
        else:
            settings.append(Setting(match["symbol"], match["value"], match["reason"], where))
    _refuse("kernel configuration fragment is malformed", faults)
    return settings


def merge(fragments: Iterable[Iterable[Setting]]) -> dict[str, Setting]:
    """All settings by symbol. Raises InnkeeperError for each symbol that is named twice, with both places."""
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


def read_fragments(folder: Path, architecture: str) -> dict[str, Setting]:
    """The settings of `folder`'s fragments: those for all architectures, and those in its subfolder for this one."""
    paths = [*sorted(folder.glob("*.conf")), *sorted((folder / architecture).glob("*.conf"))]
    if not any(path.parent.name == architecture for path in paths):
        raise InnkeeperError(f"no kernel configuration fragments for {architecture} in {folder}")
    return merge(parse_fragment(path.read_text(), str(path.relative_to(folder))) for path in paths)


def as_config(settings: Mapping[str, Setting]) -> str:
    """The settings as Kconfig reads them (KCONFIG_ALLCONFIG), without comments, in one order whatever the files' order."""
    return "".join(f"CONFIG_{symbol}={settings[symbol].value}\n" for symbol in sorted(settings))


def parse_config(text: str) -> dict[str, str]:
    """Symbols and values of a `.config`; a symbol that is not set is not in it."""
    return {match[1]: match[2] for match in map(_SET.fullmatch, text.splitlines()) if match}


def lost(settings: Mapping[str, Setting], config: Mapping[str, str]) -> list[Lost]:
    """What did not survive: symbols whose dependencies are missing, that were renamed, or that something else overrules."""
    return [
        Lost(setting, config.get(setting.symbol, "n")) for setting in settings.values() if config.get(setting.symbol, "n") != setting.value
    ]


def check(settings: Mapping[str, Setting], config: Mapping[str, str]) -> None:
    """Raise InnkeeperError when something did not survive, with name, wanted and got of each."""
    hint = "a dependency is missing, the symbol has another name in this version, or another symbol overrules it"
    _refuse("kernel configuration did not survive olddefconfig", map(str, lost(settings, config)), hint=hint)


def _refuse(title: str, faults: Iterable[str], *, hint: str | None = None) -> None:
    if listed := list(faults):
        raise InnkeeperError("\n  ".join([f"{title}:", *listed]), hint=hint)
