"""The command `kill`: send a signal to a container's first process."""

from innkeeper.cli import flags


def kill(names: list[str], signal: str = "KILL") -> None:
    """Send containers a signal."""
    from innkeeper.engine import guest_agent, records, signals

    number = signals.parse(signal)
    for container in [records.lookup(name) for name in names]:
        with guest_agent.connected(container) as agent:
            guest_agent.Process(agent, container.id, container.id).signal(number)
        print(container.name)


COMMAND = flags.Command(
    name="kill",
    run=kill,
    arguments=(flags.words("names", "CONTAINER..."),),
    flags=(flags.single("signal", "-s", "--signal", default="KILL", help="Name or number."),),
    examples=("kill web", "kill -s HUP web"),
)
