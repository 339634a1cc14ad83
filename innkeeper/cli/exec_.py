"""The command `exec`: run another process in a container."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    epilog = "Examples:  exec -it web sh;  exec -u www-data -w /tmp web id;  echo hello | exec -i web cat"
    app.command("exec", context_settings={"allow_interspersed_args": False}, epilog=epilog)(exec_)


def exec_(
    name: Annotated[str, typer.Argument(metavar="CONTAINER")],
    command: Annotated[list[str], typer.Argument(metavar="COMMAND [ARG...]")],
    interactive: Annotated[bool, typer.Option("-i", "--interactive", help="Keep standard input open.")] = False,
    tty: Annotated[bool, typer.Option("-t", "--tty", help="Give the process a terminal.")] = False,
    detach: Annotated[bool, typer.Option("-d", "--detach", help="Do not wait for it.")] = False,
    env: Annotated[list[str] | None, typer.Option("-e", "--env", metavar="NAME[=VALUE]", help="Set a variable.")] = None,
    env_file: Annotated[list[Path] | None, typer.Option("--env-file", help="Set variables from a file.")] = None,
    workdir: Annotated[str | None, typer.Option("-w", "--workdir", help="Working folder.")] = None,
    user: Annotated[str | None, typer.Option("-u", "--user", metavar="USER[:GROUP]", help="By name or number.")] = None,
) -> int:
    """Run a command in a running container. The exit status is the command's."""
    from innkeeper.engine import exec_ as execution

    request = execution.ExecRequest(command, interactive, tty, detach, env or [], env_file or [], workdir, user)
    return execution.run(name, request)
