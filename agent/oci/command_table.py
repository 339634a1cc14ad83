"""The table of subcommands, and what describes one."""

import importlib
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from agent.oci.arguments import Option, Parsed, UsageError
from agent.oci.output import Log

# Modules are imported on demand, so that `state` does not load what only `create` needs.
MODULES = {
    "create": "create",
    "run": "create",
    "start": "create",
    "state": "state",
    "list": "state",
    "kill": "kill",
    "delete": "delete",
    "exec": "exec_",
    "ps": "ps",
    "pause": "pause",
    "resume": "pause",
    "update": "update",
    "events": "events",
    "spec": "spec",
    "features": "explain",
    "explain": "explain",
}
REFUSED = {
    "checkpoint": "this runtime cannot save a container's processes",
    "restore": "this runtime cannot restore a container's processes",
}


@dataclass(frozen=True, slots=True)
class Context:
    """The options before the subcommand."""

    root: Path
    log: Log
    root_given: bool = False
    """Whether the caller has given --root."""


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand.

    `arguments` names them: optional ones in brackets, `...` for any number. `action` returns the
    exit status.
    """

    name: str
    summary: str
    action: Callable[[Context, Parsed], int]
    _: KW_ONLY
    arguments: str = "ID"
    options: tuple[Option, ...] = ()
    interleaved: bool = True
    failure: int = 1
    """The exit status after an error."""
    contains: bool = False
    """Whether it makes processes that a container can see before they execute its program."""

    def check_arguments(self, parsed: Parsed) -> None:
        """Raise UsageError if there are too few or too many arguments."""
        wanted = self.arguments.split()
        least = len([word for word in wanted if not word.startswith("[")])
        if len(parsed.arguments) < least:
            raise UsageError(f"{self.name}: needs {self.arguments}")
        if len(parsed.arguments) > len(wanted) and not self.arguments.endswith("...]"):
            raise UsageError(f"{self.name}: takes {self.arguments or 'no argument'}, and {parsed.arguments[len(wanted)]!r} is one too many")


def find(name: str) -> Command:
    """Return the subcommand of that name. Raises UsageError."""
    if name not in MODULES:
        raise UsageError(f"{name}: unknown command")
    module = importlib.import_module(f"agent.oci.commands.{MODULES[name]}")
    commands: tuple[Command, ...] = module.COMMANDS
    return next(command for command in commands if command.name == name)
