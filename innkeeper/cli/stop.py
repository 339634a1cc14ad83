"""The command `stop`: send the image's stop signal, then SIGKILL."""

from innkeeper.cli import flags


def stop(names: list[str], timeout: float = 10) -> None:
    """Ask containers to end by their image's stop signal, and kill them if they do not."""
    from innkeeper.engine import records
    from innkeeper.engine import stop as ending

    for container in records.lookup_all(names):
        ending.stop(container, timeout)
        print(container.name)


COMMAND = flags.Command(
    name="stop",
    run=stop,
    arguments=(flags.words("names", "CONTAINER..."),),
    flags=(flags.single("timeout", "-t", "--time", kind=float, minimum=0, default=10, help="Seconds until SIGKILL."),),
    examples=("stop web", "stop -t 30 web db"),
)
