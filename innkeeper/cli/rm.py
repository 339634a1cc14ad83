"""The command `rm`: remove containers."""

from typing import Annotated

import typer

from innkeeper.errors import InnkeeperError


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("rm", epilog="Examples:  rm web;  rm -f web;  rm $(build.py ps -aq)")(rm)


def rm(
    names: Annotated[list[str], typer.Argument(metavar="CONTAINER...")],
    force: Annotated[bool, typer.Option("--force", "-f", help="Also running ones; one that does not exist is no error.")] = False,
) -> None:
    """Remove containers and their logs."""
    from innkeeper.engine import records, stop
    from innkeeper.vm import registry

    for name in names:
        try:
            container = records.lookup(name)
        except InnkeeperError:
            if force:
                continue
            raise
        if container.alive:
            if not force:
                name = container.name
                hint = f"stop it first, or force removal: rm -f {name}"
                raise InnkeeperError(f"cannot remove container {name}: it is {container.facts.status}", hint=hint)
            stop.end_owner(container)
        registry.remove(container.vm)
        print(container.name)
