"""`start`: let the program of a created container run."""

from agent import loop
from agent.errors import WrongState
from agent.oci.arguments import Parsed
from agent.oci.attached import load_container
from agent.oci.command_table import Command, Context
from agent.oci.create_container import warn
from agent.oci.foreground import interruptible
from agent.oci.state_dir import locked
from agent.oci.status import observe


def start(context: Context, parsed: Parsed) -> int:
    """Run the subcommand. Return the exit status."""

    async def main() -> None:
        with locked(context.root, parsed.arguments[0]) as state_dir:
            observed = observe(state_dir)
            container = load_container(state_dir, observed)
            connection = state_dir.connect()
            if connection is None:
                raise WrongState(f"cannot start container {state_dir.id!r}: it is {observed.status.value}, not created")
            container.init.use_start_connection(connection)
            await interruptible(container.start(), "start")
            warn(context, container)
            state_dir.remove_socket()

    loop.run(main())
    return 0


COMMANDS = (Command("start", "run the program of a created container", start),)
