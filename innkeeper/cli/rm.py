"""The command `rm`: remove containers."""

from innkeeper.cli import flags
from innkeeper.errors import InnkeeperError
from innkeeper.paths import program_name


def rm(names: list[str], force: bool = False) -> None:
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
                hint = f"stop it first, or force removal: {program_name()} rm -f {name}"
                raise InnkeeperError(f"cannot remove container {name}: it is {container.facts.status}", hint=hint)
            stop.end_owner(container)
        registry.remove(container.vm)
        print(container.name)


COMMAND = flags.Command(
    name="rm",
    run=rm,
    arguments=(flags.words("names", "CONTAINER..."),),
    flags=(flags.switch("force", "-f", "--force", help="Also running ones; one that does not exist is no error."),),
    examples=("rm web", "rm -f web", "rm $(build.py ps -aq)"),
)
