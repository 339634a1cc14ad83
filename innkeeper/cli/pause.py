"""The command `pause`: freeze containers."""

from innkeeper.cli import flags


def pause(names: list[str]) -> None:
    """Stop all processes of containers, until `resume`. Their memory stays."""
    from innkeeper.engine import control, records

    for container in records.lookup_all(names):
        control.ask_owner(container, "pause")
        print(container.name)


COMMAND = flags.Command(
    name="pause",
    run=pause,
    arguments=(flags.words("names", "CONTAINER..."),),
    examples=("pause web",),
)
