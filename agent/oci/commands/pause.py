"""`pause` and `resume`: freeze and thaw every process of a container."""

from collections.abc import Awaitable, Callable

from agent import loop
from agent.container.container import Container
from agent.oci.arguments import Parsed
from agent.oci.command_table import Command, Context
from agent.oci.load_container import load_container
from agent.oci.state_dir import locked


def pause(context: Context, parsed: Parsed) -> int:
    """Run `pause`. Return the exit status."""
    return _apply(Container.pause, context, parsed)


def resume(context: Context, parsed: Parsed) -> int:
    """Run `resume`. Return the exit status."""
    return _apply(Container.resume, context, parsed)


def _apply(change: Callable[[Container], Awaitable[None]], context: Context, parsed: Parsed) -> int:
    async def main() -> None:
        with locked(context.root, parsed.arguments[0]) as state_dir:
            await change(load_container(state_dir, state_dir.observe()))

    loop.run(main())
    return 0


COMMANDS = (
    Command("pause", "freeze every process of a container", pause),
    Command("resume", "thaw a paused container", resume),
)
