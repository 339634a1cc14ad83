"""`pause` and `resume`: freeze and thaw every process of a container."""

from agent import loop
from agent.oci.arguments import Parsed
from agent.oci.attached import attach
from agent.oci.command_table import Context, Verb
from agent.oci.state_dir import locked
from agent.oci.status import condition_of


def pause(context: Context, parsed: Parsed) -> int:
    """Run `pause`. Return the exit status."""

    async def main() -> None:
        with locked(context.root, parsed.words[0]) as place:
            await attach(place, condition_of(place)).pause()

    loop.run(main())
    return 0


def resume(context: Context, parsed: Parsed) -> int:
    """Run `resume`. Return the exit status."""

    async def main() -> None:
        with locked(context.root, parsed.words[0]) as place:
            await attach(place, condition_of(place)).resume()

    loop.run(main())
    return 0


VERBS = (
    Verb("pause", "freeze every process of a container", pause),
    Verb("resume", "thaw a paused container", resume),
)
