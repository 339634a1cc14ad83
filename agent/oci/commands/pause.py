"""`pause` and `resume`: freeze and thaw every process of a container."""

from agent import loop
from agent.oci.arguments import Parsed
from agent.oci.attached import load_container
from agent.oci.command_table import Command, Context
from agent.oci.state_dir import locked
from agent.oci.status import observe


def pause(context: Context, parsed: Parsed) -> int:
    """Run `pause`. Return the exit status."""

    async def main() -> None:
        with locked(context.root, parsed.arguments[0]) as state_dir:
            await load_container(state_dir, observe(state_dir)).pause()

    loop.run(main())
    return 0


def resume(context: Context, parsed: Parsed) -> int:
    """Run `resume`. Return the exit status."""

    async def main() -> None:
        with locked(context.root, parsed.arguments[0]) as state_dir:
            await load_container(state_dir, observe(state_dir)).resume()

    loop.run(main())
    return 0


COMMANDS = (
    Command("pause", "freeze every process of a container", pause),
    Command("resume", "thaw a paused container", resume),
)
