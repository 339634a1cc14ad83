"""`create`: contain the first process and stop before its program runs. `start`, another process, lets it go."""

from agent import loop
from agent.oci import making
from agent.oci.arguments import Parsed
from agent.oci.foreground import interruptible
from agent.oci.verbs import Context, Verb


def create(context: Context, parsed: Parsed) -> int:
    """The verb."""
    wanted = making.read(context, parsed)

    async def main() -> None:
        work = making.make(context, parsed, wanted, detached=True, started_later=True)
        place, _container = await interruptible(work, "create")
        place.close()

    loop.run(main())
    return 0


VERBS = (Verb("create", "create a container from a bundle; it runs when it is started", create, options=making.OPTIONS, contains=True),)
