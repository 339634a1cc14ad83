"""The command `exec`: run another process in a container."""

from typing import Annotated, Any

import typer

from innkeeper.cli import flags

FLAGS = (*flags.STREAMS, flags.switch("detach", "-d", "--detach", help="Do not wait for it."), *flags.ENVIRONMENT, *flags.PROCESS)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    epilog = "Examples:  exec -it web sh;  exec -u www-data -w /tmp web id;  echo hello | exec -i web cat"
    app.command("exec", context_settings={"allow_interspersed_args": False}, epilog=epilog)(exec_)


@flags.taking(FLAGS)
def exec_(
    name: Annotated[str, typer.Argument(metavar="CONTAINER")],
    command: Annotated[list[str], typer.Argument(metavar="COMMAND [ARG...]")],
    given: dict[str, Any],
) -> int:
    """Run a command in a running container. The exit status is the command's."""
    from innkeeper.engine import exec_ as execution

    return execution.run(name, execution.ExecRequest(command=command, **given))
