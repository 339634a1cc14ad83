"""The command `stop`: send the image's stop signal, then SIGKILL."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("stop", epilog="Examples:  stop web;  stop -t 30 web db")(stop)


def stop(
    names: Annotated[list[str], typer.Argument(metavar="CONTAINER...")],
    timeout: Annotated[float, typer.Option("--time", "-t", help="Seconds until SIGKILL.", min=0)] = 10,
) -> None:
    """Ask containers to end by their image's stop signal, and kill them if they do not."""
    from innkeeper.engine import records
    from innkeeper.engine import stop as ending

    for container in [records.lookup(name) for name in names]:
        ending.stop(container, timeout)
        print(container.name)
