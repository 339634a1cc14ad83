"""`create`: contain the first process and stop before its program runs.

`start`, another process, lets it run.
"""

from agent import loop
from agent.oci import create_container
from agent.oci.arguments import Parsed
from agent.oci.command_table import Command, Context
from agent.oci.foreground import interruptible


def create(context: Context, parsed: Parsed) -> int:
    """Run the subcommand. Return the exit status."""
    request = create_container.read(context, parsed)

    async def main() -> None:
        work = create_container.create(context, parsed, request, detached=True, started_later=True)
        state_dir, _container = await interruptible(work, "create")
        state_dir.close()

    loop.run(main())
    return 0


COMMANDS = (
    Command(
        "create",
        "create a container from a bundle; it runs when it is started",
        create,
        options=create_container.OPTIONS,
        contains=True,
    ),
)
