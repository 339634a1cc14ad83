"""Commands as data: arguments and flags, from which parser, help and manual are made.

Whatever this imports, every command pays for. So the tables are named tuples: dataclasses imports
inspect and compiles the methods of each class, which takes longer than all else that `ps` does.
"""

import importlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

Parse: TypeAlias = Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


class Argument(NamedTuple):
    """An argument of the command line without a flag, for the command's parameter `field`.

    The last argument of a command may take `many` words.
    """

    field: str
    metavar: str
    help: str = ""
    required: bool = True
    many: bool = False
    kind: Callable[[str], Any] = str


class Flag(NamedTuple):
    """A flag: its value becomes `kind`, goes through `parse`, and is passed as `field`.

    A flag that is not given, or that `parse` makes None of, is not passed. The values of a
    `repeated` flag are parsed one by one and collected by `into`. `metavar` is "" for a switch.
    """

    field: str
    names: tuple[str, ...]
    help: str
    metavar: str = ""
    kind: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    shown_default: Any = None
    parse: Parse = _same
    repeated: bool = False
    into: Parse = list


class Refused(NamedTuple):
    """A flag of docker's that a command refuses for a reason, with what to use in its place."""

    name: str
    reason: str
    instead: str


class Command(NamedTuple):
    """A command: `run` is called with its arguments and flags by name.

    `refused` is not in its help. `interspersed`: flags may follow the first argument. If not, the
    rest is another program's command line, as in docker. `raw`: all words go to `run` as they are.
    """

    name: str
    run: Callable[..., int | None]
    arguments: tuple[Argument, ...] = ()
    flags: tuple[Flag, ...] = ()
    refused: tuple[Refused, ...] = ()
    examples: tuple[str, ...] = ()
    interspersed: bool = True
    raw: bool = False

    @property
    def text(self) -> str:
        """The help text: the docstring of `run`, without its indentation."""
        return "\n".join(line.strip() for line in (self.run.__doc__ or "").strip().splitlines())


class Group(NamedTuple):
    """A command with subcommands, of which `default` is run if none is named."""

    name: str
    text: str
    commands: "tuple[Command | Group, ...]"
    flags: tuple[Flag, ...] = ()
    default: str = ""


def switch(field: str, *names: str, help: str) -> Flag:
    """Return a flag without a value."""
    return Flag(field=field, names=names, help=help)


def single(field: str, *names: str, help: str, kind: Any = str, metavar: str = "", default: Any = None, **more: Any) -> Flag:
    """Return a flag with one value. `default` is what the help shows: the function has it."""
    return Flag(field=field, names=names, help=help, kind=kind, metavar=metavar or _placeholder(kind, more), shown_default=default, **more)


def repeated(field: str, *names: str, help: str, kind: Any = str, metavar: str = "", **more: Any) -> Flag:
    """Return a flag that may be given more than once."""
    return Flag(field=field, names=names, help=help, kind=kind, metavar=metavar or _placeholder(kind, more), repeated=True, **more)


def _placeholder(kind: Any, more: dict[str, Any]) -> str:
    if "choices" in more:
        return "|".join(more["choices"])
    return {"int": "N", "float": "NUMBER", "Path": "PATH"}.get(kind.__name__, "TEXT")


def container(**more: Any) -> Argument:
    """Return the argument that names a container."""
    return Argument(**{"field": "name", "metavar": "CONTAINER", **more})


def words(field: str, metavar: str, **more: Any) -> Argument:
    """Return an argument that takes all remaining words."""
    return Argument(field=field, metavar=metavar, many=True, **more)


def take(kind: type, given: dict[str, Any]) -> dict[str, Any]:
    """Remove from `given`, and return, the values of the fields of the dataclass `kind`."""
    from dataclasses import fields

    return {field.name: given.pop(field.name) for field in fields(kind) if field.name in given}


class LazyModule:
    """A module whose functions may be named in a table, and that is imported when one is called."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, function: str) -> Callable[..., Any]:
        return lambda *arguments: getattr(importlib.import_module(self._name), function)(*arguments)


def _path(text: str) -> Any:
    from pathlib import Path

    return Path(text)


def flat(lists: Iterable[list[Any]]) -> list[Any]:
    """Return the items of all lists in one, for a flag whose parser returns a list."""
    return [item for items in lists for item in items]


_path.__name__ = "Path"
PATH: Callable[[str], Any] = _path
"""A kind of value: a pathlib.Path, which is imported when there is one."""

JSON = switch("json", "--json", help="Print JSON.")
STREAMS = (
    switch("interactive", "-i", "--interactive", help="Keep standard input open."),
    switch("tty", "-t", "--tty", help="Give the process a terminal."),
)
ENVIRONMENT = (
    repeated("env", "-e", "--env", metavar="NAME[=VALUE]", help="Set a variable."),
    repeated("env_files", "--env-file", kind=PATH, help="Set variables from a file."),
)
PROCESS = (
    single("workdir", "-w", "--workdir", help="Working folder."),
    single("user", "-u", "--user", metavar="USER[:GROUP]", help="By name or number."),
)
