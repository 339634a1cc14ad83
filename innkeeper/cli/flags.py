"""Flags that are declared once: each row gives the option of the command line and the request's field."""

import functools
import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import typer

T = TypeVar("T")
Parse: TypeAlias = Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Flag:
    """A flag. Its value goes through `parse` into the request's field `field`.

    A flag that is not given, or that `parse` makes None of, leaves the field at its default.
    """

    field: str
    annotation: Any
    default: Any = None
    parse: Parse = _same

    def parameter(self) -> inspect.Parameter:
        """Return the parameter of a command's function from which typer makes the option."""
        return inspect.Parameter(self.field, inspect.Parameter.KEYWORD_ONLY, default=self.default, annotation=self.annotation)


def switch(field: str, *names: str, help: str) -> Flag:
    """Return a flag without a value."""
    return Flag(field, Annotated[bool, typer.Option(*names, help=help)], False)


def single(field: str, *names: str, kind: Any = str, default: Any = None, parse: Parse = _same, **shown: Any) -> Flag:
    """Return a flag with one value. `shown` are further settings of typer.Option, such as its help."""
    wanted = kind if default is not None else kind | None
    return Flag(field, Annotated[wanted, typer.Option(*names, **shown)], default, parse)


def repeated(field: str, *names: str, kind: Any = str, parse: Parse = _same, into: Parse = list, **shown: Any) -> Flag:
    """Return a flag that may be given more than once. The parsed values are collected by `into`."""
    option = typer.Option(*names, **shown)
    return Flag(field, Annotated[list[kind] | None, option], parse=lambda values: into(map(parse, values)))


def taking(flags: Iterable[Flag]) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Decorate a command's function so that it has `flags`. It gets `given`: values by field."""
    listed = tuple(flags)

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(function)
        def command(**arguments: Any) -> T:
            values = {flag: arguments.pop(flag.field, flag.default) for flag in listed}
            parsed = {flag.field: flag.parse(value) for flag, value in values.items() if value is not None}
            return function(**arguments, given={field: value for field, value in parsed.items() if value is not None})

        own = [parameter for parameter in inspect.signature(function).parameters.values() if parameter.name != "given"]
        command.__signature__ = inspect.Signature([*own, *(flag.parameter() for flag in listed)])  # type: ignore[attr-defined]
        return command

    return decorate


def take(kind: type, given: dict[str, Any]) -> dict[str, Any]:
    """Remove from `given`, and return, the values of the fields of the dataclass `kind`."""
    return {field.name: given.pop(field.name) for field in fields(kind) if field.name in given}


class LazyModule:
    """A module whose functions may be named in a table, and that is imported when one is called."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, function: str) -> Callable[..., Any]:
        return lambda *arguments: getattr(importlib.import_module(self._name), function)(*arguments)


STREAMS = (
    switch("interactive", "-i", "--interactive", help="Keep standard input open."),
    switch("tty", "-t", "--tty", help="Give the process a terminal."),
)
ENVIRONMENT = (
    repeated("env", "-e", "--env", metavar="NAME[=VALUE]", help="Set a variable."),
    repeated("env_files", "--env-file", kind=Path, help="Set variables from a file."),
)
PROCESS = (
    single("workdir", "-w", "--workdir", help="Working folder."),
    single("user", "-u", "--user", metavar="USER[:GROUP]", help="By name or number."),
)
