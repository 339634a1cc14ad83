"""Describe the commands of `innkeeper` and `innkeeper-oci`, read from their own parsers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from innkeeper.cli import parser


@dataclass(frozen=True)
class Entry:
    """One option or argument: `left` is its spelling (`-n, --tail N`), `right` its help text."""

    left: str
    right: str


@dataclass(frozen=True)
class Command:
    """A command as a reference page shows it."""

    name: str
    usage: str
    text: str
    arguments: tuple[Entry, ...] = ()
    options: tuple[Entry, ...] = ()
    examples: tuple[str, ...] = ()


def innkeeper() -> list[Command]:
    """Return every command of `innkeeper`, starting with the program itself.

    The order is that of `innkeeper --help`.
    """
    from innkeeper.cli import app

    listed = list(app.all_commands())
    top = Command("innkeeper", "innkeeper [OPTIONS] COMMAND ...", app.TOP.text, (), _options(app.TOP))
    return [top, *(described for command in listed for described in _from_command(command, "innkeeper"))]


def _from_command(command: Any, prefix: str) -> Iterator[Command]:
    """Yield the description of a command of `innkeeper`, and those of its subcommands."""
    full = f"{prefix} {command.name}"
    arguments = [Entry(argument.metavar, argument.help) for argument in getattr(command, "arguments", ())]
    examples = tuple(parser.example(text, full) for text in getattr(command, "examples", ()))
    yield Command(full, parser.usage(command, prefix), command.text, tuple(arguments), _options(command), examples=examples)
    for one in getattr(command, "commands", ()):
        yield from _from_command(one, full)


def _options(command: Any) -> tuple[Entry, ...]:
    return tuple(Entry(left, right) for left, right in parser.all_flags(command))


def innkeeper_oci() -> list[Command]:
    """Return every command of `innkeeper-oci`, starting with the program itself."""
    from agent.oci import command_table, main

    text = "Run containers as an OCI runtime command, with runc's commands and options."
    listed = [_from_table(main.NAME, "COMMAND ...", text, main.OPTIONS)]
    for name in command_table.MODULES:
        command = command_table.find(name)
        listed.append(_from_table(f"{main.NAME} {name}", command.arguments, _sentence(command.summary), command.options))
    return listed


def _from_table(full: str, words: str, text: str, options: Any) -> Command:
    entries = [Entry(_spelling(option), _meaning(option)) for option in options]
    return Command(full, f"{full} [OPTIONS] {words}".strip(), text, (), tuple(entries))


def _spelling(option: Any) -> str:
    short = f"-{option.short}, " if option.short else ""
    return f"{short}--{option.name} {option.value}".rstrip()


def _meaning(option: Any) -> str:
    text = _sentence(option.help)
    if option.choices:
        text += f" One of {', '.join(option.choices)}."
    if option.refused:
        text += f" Refused: {option.refused}."
    return text + (" May be given more than once." if option.many else "")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
