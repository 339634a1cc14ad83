"""The command `fork`: start containers from one that runs, or from a snapshot."""

from typing import TYPE_CHECKING, Any

from innkeeper.cli import flags

if TYPE_CHECKING:
    from innkeeper.image import option_values as values
else:
    values = flags.LazyModule("innkeeper.image.option_values")


def fork(source: str, **given: Any) -> None:
    """Start containers that go on where CONTAINER is now, or where it was when SNAPSHOT was taken.

    Each runs in the background in a VM of its own, with a copy of memory and files; its id is
    printed.
    """
    from innkeeper.engine import forks

    wanted = {"number": 1, "name": "", "ports": [], "remove": False, **given}
    for id in forks.start(source, **wanted):
        print(id, flush=True)


COMMAND = flags.Command(
    name="fork",
    run=fork,
    arguments=(flags.Argument(field="source", metavar="CONTAINER|SNAPSHOT"),),
    flags=(
        flags.single("number", "-n", "--number", kind=int, minimum=1, default=1, help="How many."),
        flags.single("name", "--name", help="A name; with -n, names NAME-1, NAME-2, ..."),
        flags.repeated(
            "ports", "-p", "--publish", parse=values.parse_ports, into=flags.flat, metavar="[[IP:]HOST:]PORT[/udp]", help="Forward a port."
        ),
        flags.switch("remove", "--rm", help="Forget a fork when it ends."),
    ),
    examples=("fork web -p 8081:80", "fork warm -n 5 -p 80"),
)
