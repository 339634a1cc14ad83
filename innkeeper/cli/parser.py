"""Parse the words of a command by its table, and print its help.

getopt does the parsing, as docker's pflag does it: `-it`, `-p80`, `-p 80`, `--name=web`, a value
that begins with a dash, and for `run` and `exec` no flag after the first argument. argparse differs
in the last two, and click and cyclopts take much longer to start (docs/cli.md).
"""

import getopt
from typing import Any

from innkeeper.cli.flags import Command, Flag, Group
from innkeeper.errors import InnkeeperError

WIDTH = 100
"""Columns of a help text."""


class HelpWanted(Exception):
    """The user asks for the help of a command."""


def parse(command: Command, words: list[str], usage: str) -> dict[str, Any]:
    """Return the parameters for the command's function. `usage` is how the command was called.

    Raises HelpWanted, and InnkeeperError for anything the table does not have.
    """
    if command.raw:
        if "--help" in words or "-h" in words:
            raise HelpWanted
        return {command.arguments[0].field: words}
    try:
        pairs, rest = split(command, words)
        values = _flags(command, pairs)
        return {**values, **_arguments(command, rest)}
    except UsageError as error:
        raise InnkeeperError(str(error), hint=f"see {usage} --help") from None


class UsageError(Exception):
    """A message about the words, to which the caller adds the hint."""


def split(command: Command, words: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Split the words into flags with their values, and arguments.

    Raises UsageError, HelpWanted, and InnkeeperError for a refused flag.
    """
    takes_value = {**dict.fromkeys(help_names(command), False), **{name: bool(flag.metavar) for name, flag in _by_name(command).items()}}
    short = "".join(name[1] + ":" * takes for name, takes in takes_value.items() if len(name) == 2)
    long = [name[2:] + "=" * takes for name, takes in takes_value.items() if len(name) > 2]
    parse_words = getopt.gnu_getopt if command.interspersed else getopt.getopt
    try:
        pairs, rest = parse_words(words, short, long)
    except getopt.GetoptError as error:
        spelled = f"--{error.opt}" if len(error.opt) > 1 else f"-{error.opt}"
        if "requires argument" in error.msg:
            help_is = " (help is --help)" if spelled == "-h" else ""
            raise UsageError(f"flag needs an argument: {spelled}{help_is}") from None
        if "must not have an argument" in error.msg:
            raise UsageError(f"flag takes no argument: {spelled}") from None
        for refused in command.refused:
            if refused.name == spelled:
                raise InnkeeperError(f"{spelled} is not supported: {refused.reason}", hint=refused.instead) from None
        raise UsageError(f"unknown flag: {spelled}{_nearest(spelled, command)}") from None
    for name, _ in pairs:
        if len(name) > 2 and not any(word == name or word.startswith(f"{name}=") for word in words):
            short_form = next(word for word in words if word.startswith("--") and name.startswith(word.partition("=")[0]))
            spelled = short_form.partition("=")[0]
            raise UsageError(f"unknown flag: {spelled}{_nearest(spelled, command)}")  # docker takes no abbreviation
    if any(name in help_names(command) for name, _ in pairs):
        raise HelpWanted
    return pairs, rest


def _nearest(spelled: str, command: Command) -> str:
    """Return a question for the flag that was meant, or "" if none is like it."""
    from difflib import get_close_matches

    names = [name[2:] for flag in command.flags for name in flag.names if name.startswith("--")]
    word = spelled.lstrip("-")
    found = [name for name in names if len(word) > 1 and name.startswith(word)] or get_close_matches(word, names, n=1, cutoff=0.7)
    return f", did you mean --{found[0]}?" if found else ""


def _by_name(command: Command) -> dict[str, Flag]:
    return {name: flag for flag in command.flags for name in flag.names}


def help_names(command: Command | Group) -> tuple[str, ...]:
    """Return the flags that ask for help, without -h if the command has its own (`run -h HOST`)."""
    return ("--help",) if any("-h" in flag.names for flag in command.flags) else ("-h", "--help")


def _flags(command: Command, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the values of the flags that are given. Raises UsageError."""
    known = _by_name(command)
    given: dict[str, list[Any]] = {}
    for name, text in pairs:
        flag = known[name]
        given.setdefault(flag.field, []).append(_value(flag, name, text) if flag.metavar else True)
    values: dict[str, Any] = {}
    for flag in command.flags:
        if flag.field in given:
            one = given[flag.field]
            parsed = flag.into([flag.parse(value) for value in one]) if flag.repeated else flag.parse(one[-1])
            if parsed is not None:
                values[flag.field] = parsed
    return values


def _value(flag: Flag, name: str, text: str) -> Any:
    """Return the value of a flag. Raises UsageError if it is not of the flag's kind."""
    if flag.choices and text not in flag.choices:
        raise UsageError(f"{name} {text}: choose one of {', '.join(flag.choices)}")
    try:
        value = flag.kind(text)
    except ValueError:
        raise UsageError(f"{name} {text}: not a number") from None
    if flag.minimum is not None and value < flag.minimum:
        raise UsageError(f"{name} {text}: must be at least {flag.minimum:g}")
    if flag.maximum is not None and value > flag.maximum:
        raise UsageError(f"{name} {text}: must be at most {flag.maximum:g}")
    return value


def _arguments(command: Command, rest: list[str]) -> dict[str, Any]:
    """Return the values of the arguments. Raises UsageError if there are too few or too many."""
    values: dict[str, Any] = {}
    for argument in command.arguments:
        if argument.required and not rest:
            raise UsageError(f"{command.name}: {argument.metavar.partition(' ')[0].rstrip('.')} is missing")
        if argument.many:
            taken, rest = rest, []
            if taken:
                values[argument.field] = [argument.kind(word) for word in taken]
        elif rest:
            values[argument.field] = argument.kind(rest.pop(0))
    if rest:
        raise UsageError(f"{command.name}: unexpected argument {rest[0]!r}")
    return values


def usage(command: Command | Group, program: str) -> str:
    """Return the usage of a command in one line."""
    if isinstance(command, Group):
        return f"{program} {command.name} [OPTIONS] COMMAND ...".replace("  ", " ")
    return " ".join([program, command.name, "[OPTIONS]", *(argument.metavar for argument in command.arguments)])


def spelling(flag: Flag) -> str:
    """Return how a flag is given: `-n, --tail N`."""
    return f"{', '.join(flag.names)} {flag.metavar}".rstrip()


def meaning(flag: Flag) -> str:
    """Return the help of a flag, with its default and whether it may be repeated."""
    text = flag.help
    if flag.repeated:
        text += " May be given more than once."
    return text if flag.shown_default is None else f"{text} [default: {flag.shown_default}]"


def all_flags(command: Command | Group) -> list[tuple[str, str]]:
    """Return spelling and meaning of every flag of a command, that of the help included."""
    named = [(spelling(flag), meaning(flag)) for flag in command.flags]
    return [*named, (", ".join(help_names(command)), "Show this message and exit.")]


def help_text(command: Command | Group, program: str) -> str:
    """Return the help of a command."""
    parts = [f"Usage: {usage(command, program)}", _paragraphs(command.text)]
    if isinstance(command, Group):
        parts.append(section("Commands", [(one.name, one.text.partition("\n")[0]) for one in command.commands]))
    else:
        named = [(argument.metavar, argument.help) for argument in command.arguments if argument.help]
        parts.append(section("Arguments", named) if named else "")
    parts.append(section("Options", all_flags(command)))
    if isinstance(command, Command) and command.examples:
        parts.append("\n".join(["Examples:", *(f"  {example(text, f'{program} {command.name}')}" for text in command.examples)]))
    return "\n\n".join(filter(None, parts))


def example(text: str, full: str) -> str:
    """Return an example of the command `full` ("build.py kata install") as a whole command line.

    In the table it starts with the command's name only, so the program is added. Text before a
    pipe, and other programs, stay as they are.
    """
    import re

    program, _, name = full.partition(" ")
    text = text.replace("build.py ", f"{program} ")
    return re.sub(rf"(^|\| )(?={re.escape(name.split()[0])}\b)", rf"\1{program} ", text)


def _paragraphs(text: str) -> str:
    import textwrap

    indent = {"initial_indent": "  ", "subsequent_indent": "  "}
    return "\n\n".join(textwrap.fill(" ".join(part.split()), WIDTH, **indent) for part in text.split("\n\n"))  # type: ignore[arg-type]


def section(title: str, rows: list[tuple[str, str]]) -> str:
    """Return a section with two columns.

    The second one is wrapped, and begins below a long first.
    """
    import textwrap

    width = min(30, max(len(left) for left, _ in rows)) + 2
    lines = [f"{title}:"]
    for left, right in rows:
        wrapped = textwrap.wrap(right, WIDTH - width - 2) or [""]
        if len(left) + 2 > width:
            lines.append(f"  {left}")
        else:
            lines.append(f"  {left:<{width}}{wrapped.pop(0)}".rstrip())
        lines += [" " * (width + 2) + line for line in wrapped]
    return "\n".join(lines)
