"""`run`: create, start, wait and delete in one process.

This process relays the terminal and passes signals on.
"""

from agent import loop
from agent.container.container import Container
from agent.linux.process import set_child_subreaper
from agent.oci import create_container
from agent.oci.arguments import Option, Parsed
from agent.oci.command_table import Command, Context
from agent.oci.foreground import Foreground, interruptible
from agent.oci.state_dir import StateDir

OPTIONS = (
    *create_container.OPTIONS,
    Option("detach", "do not wait for the container's end", short="d"),
    Option("keep", "do not delete the container at its end"),
)


def run(context: Context, parsed: Parsed) -> int:
    """Run the subcommand. Return the exit status.

    It is that of the container's program, 128 + n if signal n ended it, or 0 with --detach.
    """
    request = create_container.read(context, parsed)
    detached = parsed.switch("detach")
    if not detached and not parsed.switch("no-subreaper"):
        set_child_subreaper()

    async def main() -> int:
        work = create_container.create(context, parsed, request, detached=detached, started_later=False)
        state_dir, container = await interruptible(work, "create")
        foreground = None if detached else Foreground()
        with state_dir:
            try:
                await container.start()
                state_dir.unlock()
                if foreground is None:
                    return 0
                status = await foreground.until_end(container.init)
            except BaseException:
                await _delete(context, state_dir, container)
                raise
            if not parsed.switch("keep"):
                await _delete(context, state_dir, container)
            return status

    return loop.run(main())


async def _delete(context: Context, state_dir: StateDir, container: Container) -> None:
    state_dir.lock()
    await container.remove()
    create_container.warn(context, container)
    state_dir.remove()


COMMANDS = (Command("run", "create and start a container, wait for its end and delete it", run, options=OPTIONS, contains=True),)
