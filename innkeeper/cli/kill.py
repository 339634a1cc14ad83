"""The command `kill`: send a signal to a container's first process."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("kill", epilog="Examples:  kill web;  kill -s HUP web")(kill)


def kill(
    names: Annotated[list[str], typer.Argument(metavar="CONTAINER...")],
    signal: Annotated[str, typer.Option("--signal", "-s", help="Name or number.")] = "KILL",
) -> None:
    """Send containers a signal."""
    from innkeeper.engine import guest_agent, records, signals

    number = signals.parse(signal)
    for container in [records.lookup(name) for name in names]:
        with guest_agent.connected(container) as agent:
            guest_agent.Process(agent, container.id, container.id).signal(number)
        print(container.name)
