"""The command `inspect`: print everything known about containers."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from innkeeper.cli import show
from innkeeper.errors import InnkeeperError

EXAMPLES = "Examples:  inspect web;  inspect web | jq '.[0].State';  inspect web | jq '.[0].spec.process.capabilities'"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("inspect", epilog=EXAMPLES)(inspect)


def inspect(names: Annotated[list[str], typer.Argument(metavar="CONTAINER...")]) -> None:
    """Print as JSON what is known of containers: record, OCI specification, and of running ones the guest's figures."""
    from innkeeper.engine import records

    show.print_json([_known(records.lookup(name)) for name in names])


def _known(container: "records.Container") -> dict[str, Any]:
    """Return everything known about a container as a document.

    A guest that does not answer is part of the document and no failure: the rest still helps.
    """
    import json

    from innkeeper.engine import guest_agent
    from innkeeper.engine.records import RUNNING

    machine = {key: value for key, value in container.vm.state.items() if key != "container"}
    known = {**container.docker_document(), **container.document(), "machine": machine}
    if (path := container.folder / "spec.json").exists():
        known["spec"] = json.loads(path.read_text())
    if container.facts.status == RUNNING:
        try:
            with guest_agent.connected(container) as agent:
                known["guest"] = guest_agent.statistics(agent, container.id)
        except InnkeeperError as error:
            known["guest"] = {"error": error.message}
    return known


if TYPE_CHECKING:
    from innkeeper.engine import records
