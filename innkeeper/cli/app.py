"""The commands, combined into one program.

The file of a command imports nothing heavy at its top, and only the file of the command that runs
is imported, so that `ps` and `--help` are fast.
"""

import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from innkeeper.cli import parser
from innkeeper.cli.flags import Command, Group, switch, words
from innkeeper.errors import InnkeeperError
from innkeeper.paths import program_name

COMMANDS = {
    "run": "run",
    "exec": "exec_",
    "ps": "ps",
    "logs": "logs",
    "stop": "stop",
    "kill": "kill",
    "rm": "rm",
    "pause": "pause",
    "resume": "resume",
    "snapshot": "snapshot",
    "snapshots": "snapshots",
    "fork": "fork",
    "inspect": "inspect_",
    "shell": "shell",
    "proxy": "proxy",
    "pool": "pool",
    "build": "build",
    "image": "image",
    "explain": "explain",
    "shim": "shim",
    "kata": "kata",
    "doctor": "doctor",
    "completion": "completion",
    "test": "tests.command",
    "bench": "bench.command",
}
"""Command -> its module, in this package unless it has a dot, in the order of use."""

ALIASES = {"unpause": "resume"}
"""Docker's names of commands that have another one here."""

EXIT_STATUS = "Exit status: the container's; 125 our own failure, 126 cannot be invoked, 127 not found, 128+n killed by signal n."


def options(**given: bool) -> None:
    """Run containers in virtual machines of their own.

    Each has a minimal kernel and a frozen Python agent as PID 1, and runs any OCI image.
    """
    if given.get("quiet"):
        from innkeeper import progress

        progress.be_quiet()
    if given.get("debug"):
        os.environ["INNKEEPER_DEBUG"] = "1"
    if given.get("no_install"):
        from innkeeper import programs

        os.environ[programs.NO_INSTALL_ENV] = "1"


TOP = Command(
    name="",
    run=options,
    arguments=(words("rest", "COMMAND ...", required=False),),
    flags=(
        switch("quiet", "-q", "--quiet", help="Print no progress."),
        switch("debug", "--debug", help="Show tracebacks of failures, and how the guest started."),
        switch("no_install", "--no-install", help="Never install a host program; print the command instead."),
        switch("version", "--version", help="Print the version."),
    ),
    interspersed=False,
)


def top() -> Group:
    """Return the program as a group of all its commands."""
    return Group(name="", text=f"{TOP.text}\n\n{EXIT_STATUS}", commands=tuple(all_commands()), flags=TOP.flags)


def all_commands() -> Iterator[Command | Group]:
    """Yield every command that can be run here, in the order of use."""
    for name, where in COMMANDS.items():
        if "." not in where or in_source_tree(name):
            yield find(name)


def find(name: str) -> Command | Group:
    """Import a command. Raises InnkeeperError for an unknown name."""
    name = ALIASES.get(name, name)
    if name not in COMMANDS:
        raise InnkeeperError(f"{name} is not a command", hint=f"see {program_name()} --help")
    command: Command | Group = module(name).COMMAND
    return command


def in_source_tree(name: str) -> bool:
    """Return whether this runs from a source tree that has the module of a command."""
    from innkeeper.paths import project_root

    return (project_root() / COMMANDS[name].partition(".")[0]).is_dir()


def module(name: str) -> Any:
    """Import the module of a command.

    Raises InnkeeperError if only a source tree has it and this is an installed innkeeper.
    """
    where = COMMANDS[name]
    if "." not in where:
        return importlib.import_module(f"innkeeper.cli.{where}")
    if not in_source_tree(name):
        raise InnkeeperError(f"{name} is part of the source tree, and not installed: run ./build.py {name} in a clone")
    from innkeeper.paths import project_root

    if str(project_root()) not in sys.path:  # an editable install
        sys.path.insert(0, str(project_root()))
    return importlib.import_module(where)


def run_app(given: list[str]) -> int:
    """Run the command that the words name. Return its exit status. Raises InnkeeperError."""
    program = program_name()
    try:
        values = parser.parse(TOP, given, program)
    except parser.HelpWanted:
        return _print(parser.help_text(top(), program))
    if values.get("version"):
        from innkeeper import __version__

        return _print(__version__)
    name, *rest = values.pop("rest", [""])
    options(**values)
    return _run(find(name), rest, program) if name else _print(parser.help_text(top(), program))


def _run(command: Command | Group, rest: list[str], program: str) -> int:
    called = f"{program} {command.name}"
    if isinstance(command, Group):
        rest = rest or [command.default]
        chosen = next((one for one in command.commands if one.name == rest[0]), None)
        if chosen is not None:
            return _run(chosen, rest[1:], called)
        if rest[0] not in ("", "-h", "--help"):
            raise InnkeeperError(f"{command.name} {rest[0]}: not a command", hint=f"see {called} --help")
        return _print(parser.help_text(command, program))
    try:
        values = parser.parse(command, rest, called)
    except parser.HelpWanted:
        return _print(parser.help_text(command, program))
    return int(command.run(**values) or 0)


def _print(text: str) -> int:
    print(text)
    return 0
