"""The command `kill`: send a signal to a container's first process."""

from innkeeper.cli import flags


def kill(names: list[str], signal: str = "KILL") -> None:
    """Send containers a signal."""
    from innkeeper.engine import records, signals, stop

    number = signals.parse(signal)
    for container in records.lookup_all(names):
        stop.kill(container, number)
        print(container.name)


COMMAND = flags.Command(
    name="kill",
    run=kill,
    arguments=(flags.words("names", "CONTAINER..."),),
    flags=(flags.single("signal", "-s", "--signal", default="KILL", help="Name or number."),),
    examples=("kill web", "kill -s HUP web"),
)
