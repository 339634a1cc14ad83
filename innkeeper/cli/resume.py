"""The command `resume`: thaw containers."""

from innkeeper.cli import flags


def resume(names: list[str]) -> None:
    """Let the processes of paused containers go on."""
    from innkeeper.engine import control, records

    for container in records.lookup_all(names):
        control.ask_owner(container, "resume")
        print(container.name)


COMMAND = flags.Command(
    name="resume",
    run=resume,
    arguments=(flags.words("names", "CONTAINER..."),),
    examples=("resume web",),
)
