"""The commands, combined into one program.

The file of a command imports nothing heavy at its top, so that `--help` and `ps` are fast.
"""

import importlib
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from innkeeper import programs, progress
from innkeeper.errors import InnkeeperError
from innkeeper.paths import project_root

VERBS = {
    "run": "run",
    "exec": "exec_",
    "ps": "ps",
    "logs": "logs",
    "stop": "stop",
    "kill": "kill",
    "rm": "rm",
    "inspect": "inspect_",
    "shell": "shell",
    "proxy": "proxy",
    "build": "build",
    "explain": "explain",
    "kata": "kata",
    "doctor": "doctor",
    "test": "tests.command",
    "bench": "bench.command",
}
"""Command -> its module, in this package unless it has a dot, in the order of use."""


class InOrder(TyperGroup):
    """A group that lists commands in the order of their registration, which is the order of use."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override, unused-ignore]
        return list(self.commands)


app = typer.Typer(
    name="innkeeper",
    cls=InOrder,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Exit status: the container's; 125 our own failure, 126 cannot be invoked, 127 not found, 128+n killed by signal n.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from innkeeper import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of failures.")] = False,
    no_install: Annotated[bool, typer.Option("--no-install", help="Never install a host program; print the command instead.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)] = False,
) -> None:
    """Containers in virtual machines of their own: a minimal kernel, a frozen Python agent as PID 1, any OCI image."""
    if quiet:
        progress.be_quiet()
    if debug:
        os.environ["INNKEEPER_DEBUG"] = "1"
    if no_install:
        os.environ[programs.NO_INSTALL_ENV] = "1"


def register(words: list[str]) -> None:
    """Register the command that `words` name, or all of them if they name none.

    Each takes time to import, and only help, completion and the manual need all of them.
    """
    named = next((word for word in words if not word.startswith("-")), "")
    for verb in [named] if named in VERBS else VERBS:
        if verb == named or "." not in VERBS[verb] or in_source_tree(verb):
            module(verb).register(app)


def in_source_tree(verb: str) -> bool:
    """Return whether the module of `verb`, which is not installed, is in a source tree around us."""
    return (project_root() / VERBS[verb].partition(".")[0]).is_dir()


def module(verb: str) -> Any:
    """Import the module of a command.

    Raises InnkeeperError if only a source tree has it and this is an installed innkeeper.
    """
    name = VERBS[verb]
    if "." not in name:
        return importlib.import_module(f"innkeeper.cli.{name}")
    if not in_source_tree(verb):
        raise InnkeeperError(f"{verb} is part of the source tree, and not installed: run ./build.py {verb} in a clone")
    if str(project_root()) not in sys.path:  # an editable install
        sys.path.insert(0, str(project_root()))
    return importlib.import_module(name)


def run_app(words: list[str]) -> int:
    """Run the command that `words` name. Return its exit status.

    Usage errors are printed and return 125, as in docker.
    """
    register(words)
    try:
        result = typer.main.get_command(app).main(args=words, prog_name=program_name(), standalone_mode=False)
    except typer.Abort:
        return 130
    except typer.TyperException as error:
        print(f"innkeeper: {error.format_message()}", file=sys.stderr)
        print(f"  see {program_name()} --help", file=sys.stderr)
        return 125
    return int(result or 0)


def program_name() -> str:
    """Return the name the user calls us by: `build.py` in a source tree, else `innkeeper`."""
    return "innkeeper" if os.path.basename(sys.argv[0]) == "innkeeper" else "build.py"
