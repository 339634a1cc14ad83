"""`delete`: undo everything that creating the container did."""

from pathlib import Path

from agent import loop
from agent.container.lifecycle import Status
from agent.errors import NotFound, WrongState
from agent.oci.arguments import NO_REGEX, Option, Parsed
from agent.oci.attached import attach
from agent.oci.command_table import Context, Verb
from agent.oci.create_container import warn
from agent.oci.state_dir import Place
from agent.oci.status import condition_of


def delete(context: Context, parsed: Parsed) -> int:
    """Run the subcommand. Return the exit status.

    With --force it is not an error if the container does not exist.
    """
    force = parsed.switch("force")
    try:
        with Place.find(context.root, parsed.words[0]) as place:
            if force:
                _end(place)
                place.lock_by_force()
            else:
                place.lock()
            loop.run(_delete(context, place, force))
    except NotFound:
        if not force:
            raise
    return 0


def _end(place: Place) -> None:
    """Kill the container's processes before the lock is requested.

    The holder of the lock may be waiting for one of them.
    """
    try:
        record = place.load()
    except NotFound:
        return
    if not record.owns_group():
        return
    try:
        Path(record.cgroup, "cgroup.kill").write_text("1", encoding="ascii")
    except FileNotFoundError:
        return


async def _delete(context: Context, place: Place, force: bool) -> None:
    try:
        condition = condition_of(place)
        if condition.status is not Status.STOPPED and not force:
            raise WrongState(f"cannot delete container {place.id!r} that is not stopped: {condition.status.value}")
        container = attach(place, condition)
    except NotFound:
        if force:
            # A creation that was interrupted before it had made anything.
            place.remove()
        raise
    await container.remove()
    warn(context, container)
    place.remove()


VERBS = (
    Verb(
        "delete",
        "delete a stopped container",
        delete,
        options=(Option("force", "kill it first if it runs; not to exist is no error", short="f"), NO_REGEX),
    ),
)
