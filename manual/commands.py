"""Describe the commands of `innkeeper` and `innkeeper-oci`, read from their own parsers."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer

TYPES = {"str": "TEXT", "int": "N", "float": "NUMBER", "path": "PATH"}
"""Maps the parser's name of a type to the placeholder for its value on a page."""


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
    """Return every public command of `innkeeper`, starting with the program itself.

    The order is that of `innkeeper --help`.
    """
    from innkeeper.cli import app

    app.register([])
    top = typer.main.get_command(app.app)
    context: Any = top.make_context("innkeeper", [], resilient_parsing=True)
    return [_from_typer(top, context, "innkeeper"), *_subcommands(top, context, "innkeeper")]


def _subcommands(group: Any, parent: Any, prefix: str) -> Iterator[Command]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        full = f"{prefix} {name}"
        context = command.context_class(command, info_name=name, parent=parent)
        yield _from_typer(command, context, full)
        if hasattr(command, "commands"):
            yield from _subcommands(command, context, full)


def _from_typer(command: Any, context: Any, full: str) -> Command:
    arguments, options, words = [], [], []
    for parameter in command.get_params(context):
        left, right = parameter.get_help_record(context)
        right = right.replace("[required]", "").strip()
        if parameter.param_type_name == "argument":
            left = re.sub(r" <[^<>]*>$", "", left)
            arguments.append(Entry(left, right))
            words.append(left)
        else:
            left = re.sub(r"<(?:list\[)?(str|int|float|path|Path)(?: range)?\]?>", lambda match: TYPES[match[1].lower()], left)
            if parameter.multiple:
                right = f"{right} May be given more than once."
            options.append(Entry(left, re.sub(r"  +", " ", right)))
    if hasattr(command, "commands"):
        words.append("COMMAND ...")
    usage = " ".join([full, "[OPTIONS]", *words])
    return Command(full, usage, (command.help or "").strip(), tuple(arguments), tuple(options), _examples(command.epilog, full))


def _examples(epilog: str | None, full: str) -> tuple[str, ...]:
    """Return the examples of a help epilog as whole command lines."""
    head, found, tail = (epilog or "").replace("build.py ", f"{full.partition(' ')[0]} ").partition("Examples:")
    if not found or head.strip():
        return ()
    program, _, name = full.partition(" ")
    lines = (line.strip() for line in re.split(r"\n+|;  ?", tail))
    # An example starts with the command's name only, so the program is added. Text before a pipe,
    # and other programs, stay as they are.
    last = name.split()[0] if name else ""
    return tuple(re.sub(rf"(^|\| )(?={re.escape(last)}\b)", rf"\1{program} ", line) for line in lines if line)


def innkeeper_oci() -> list[Command]:
    """Return every command of `innkeeper-oci`, starting with the program itself."""
    from agent.oci import command_table, main

    listed = [_from_table(main.NAME, "VERB ...", "Run containers as an OCI runtime command, with runc's verbs and options.", main.OPTIONS)]
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
