"""`start`: let the program of a created container run."""

from agent import loop
from agent.errors import WrongState
from agent.oci.arguments import Parsed
from agent.oci.attached import attach
from agent.oci.command_table import Context, Verb
from agent.oci.create_container import warn
from agent.oci.foreground import interruptible
from agent.oci.state_dir import locked
from agent.oci.status import condition_of


def start(context: Context, parsed: Parsed) -> int:
    """Run the subcommand. Return the exit status."""

    async def main() -> None:
        with locked(context.root, parsed.words[0]) as place:
            condition = condition_of(place)
            container = attach(place, condition)
            connection = place.connect()
            if connection is None:
                raise WrongState(f"cannot start container {place.id!r}: it is {condition.status.value}, not created")
            container.init.use_start_connection(connection)
            await interruptible(container.start(), "start")
            warn(context, container)
            place.forget_socket()

    loop.run(main())
    return 0


VERBS = (Verb("start", "run the program of a created container", start),)
