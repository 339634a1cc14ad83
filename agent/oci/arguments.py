"""Parses a command line by a table of options, the way runc does.

The forms are `--name value`, `--name=value` and `-n value`. A switch takes no value, or
`--switch=false`. An option that is known but not applied is refused by its name, with the reason.
An unknown option is an error. `--` ends the options.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

from agent.errors import AgentError, Refused

TRUE, FALSE = ("true", "1"), ("false", "0")
UNITS = ("", "K", "M", "G", "T", "P")
SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGTP]?)I?B?", re.IGNORECASE | re.ASCII)


class UsageError(AgentError):
    """The command line cannot be parsed."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    `value` is its placeholder in the help text. Without it the option is a switch. `refused` is the
    reason why the option is not applied.
    """

    name: str
    help: str
    value: str = ""
    _: KW_ONLY
    short: str = ""
    many: bool = False
    choices: tuple[str, ...] = ()
    refused: str = ""

    def usage(self) -> str:
        """Return the option as the help text shows it."""
        names = f"--{self.name}" + (f", -{self.short}" if self.short else "")
        return f"{names} {self.value}".rstrip()


FORMAT = Option("format", "table or json", "FORMAT", short="f", choices=("table", "json"))
NO_REGEX = Option("regex", "every container whose id matches", short="r", refused="name one; `list -q` gives the ids to choose from")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A parsed command line: the values of its options, and the other arguments."""

    values: Mapping[str, list[str]] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()

    def text(self, name: str, default: str = "") -> str:
        """Return the last value of an option."""
        return self.values[name][-1] if name in self.values else default

    def switch(self, name: str) -> bool:
        """Return whether a switch is on."""
        return self.text(name) in TRUE

    def has(self, name: str) -> bool:
        """Return whether an option is given."""
        return name in self.values

    def many(self, name: str) -> list[str]:
        """Return all values of an option, in order."""
        return list(self.values.get(name, ()))

    def number(self, name: str, default: int = 0) -> int:
        """Return the value of an option as an integer. Raises UsageError."""
        value = self.text(name)
        if not value:
            return default
        try:
            return int(value)
        except ValueError:
            raise UsageError(f"--{name}: {value!r} is not a whole number") from None

    def size(self, name: str) -> int:
        """Return the value of an option as bytes, -1 for no limit. Raises UsageError.

        Takes what runc takes: a number, with a fraction or not, and K, M, G, T or P (times 1024).
        """
        value = self.text(name)
        if value.startswith("-"):
            return self.number(name)
        if (found := SIZE.fullmatch(value)) is None:
            raise UsageError(f"--{name}: {value!r} is not a number of bytes such as 1048576, 64M or 1.5G")
        return int(float(found[1]) * 1024 ** UNITS.index(found[2].upper()))


def parse(words: Sequence[str], options: Sequence[Option], *, interleaved: bool = True) -> Parsed:
    """Parse `words` by a table of options. Raises UsageError, Refused.

    Without `interleaved`, the first word that is not an option ends the options.
    """
    by_name = {f"--{option.name}": option for option in options} | {f"-{option.short}": option for option in options if option.short}
    values: dict[str, list[str]] = {}
    others: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            others += rest
            break
        if not word.startswith("-") or word == "-":
            others.append(word)
            if interleaved:
                continue
            others += rest
            break
        name, equals, value = word.partition("=")
        option = by_name.get(name)
        if option is None:
            raise UsageError(f"{name}: unknown option")
        values.setdefault(option.name, []).append(_value(option, name, value if equals else None, rest))
    return Parsed(values, tuple(others))


def _value(option: Option, name: str, value: str | None, rest: list[str]) -> str:
    if not option.value:
        value = "true" if value is None else value
        if value not in TRUE + FALSE:
            raise UsageError(f"{name}: {value!r} is neither true nor false")
        if option.refused and value in TRUE:
            raise Refused(name, option.refused)
        return value
    if value is None:
        if not rest:
            raise UsageError(f"{name}: needs a value")
        value = rest.pop(0)
    if option.refused:
        raise Refused(name, option.refused)
    if option.choices and value not in option.choices:
        raise UsageError(f"{name}: {value!r} is not one of {', '.join(option.choices)}")
    return value
