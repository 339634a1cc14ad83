"""The command `inspect`: print everything known about containers."""

from typing import TYPE_CHECKING, Any

from innkeeper.cli import flags, show
from innkeeper.errors import InnkeeperError

if TYPE_CHECKING:
    from innkeeper.engine import records


def inspect(names: list[str]) -> None:
    """Print what is known of containers as JSON.

    It has the record, the OCI specification, and for running ones the guest's statistics.
    """
    from innkeeper.engine import records

    show.print_json([_known(container) for container in records.lookup_all(names)])


def _known(container: "records.Container") -> dict[str, Any]:
    """Return everything known about a container as a document.

    A guest that does not answer is part of the document and no failure: the rest still helps.
    """
    import json

    from innkeeper.engine import guest_agent
    from innkeeper.engine.records import RUNNING, SPEC

    machine = {key: value for key, value in container.vm.state.items() if key != "container"}
    known = {**container.docker_document(), **container.document(), "machine": machine}
    if (path := container.folder / SPEC).exists():
        known["spec"] = json.loads(path.read_text())
    if container.facts.status == RUNNING:
        try:
            with guest_agent.connected(container) as agent:
                known["guest"] = guest_agent.statistics(agent, container.guest_id)
        except InnkeeperError as error:
            known["guest"] = {"error": error.message}
    return known


COMMAND = flags.Command(
    name="inspect",
    run=inspect,
    arguments=(flags.words("names", "CONTAINER..."),),
    examples=("inspect web", "inspect web | jq '.[0].State'", "inspect web | jq '.[0].spec.process.capabilities'"),
)
