"""`delete`: undo everything that creating the container did."""

from pathlib import Path

from agent import loop
from agent.container.lifecycle import Status
from agent.errors import NotFound, WrongState
from agent.oci.arguments import NO_REGEX, Option, Parsed
from agent.oci.command_table import Command, Context
from agent.oci.load_container import load_container
from agent.oci.state_dir import StateDir


def delete(context: Context, parsed: Parsed) -> int:
    """Run the subcommand. Return the exit status.

    With --force it is not an error if the container does not exist.
    """
    force = parsed.switch("force")
    try:
        with StateDir.open(context.root, parsed.arguments[0]) as state_dir:
            if force:
                _end(state_dir)
                state_dir.lock_by_force()
            else:
                state_dir.lock()
            loop.run(_delete(context, state_dir, force))
    except NotFound:
        if not force:
            raise
    return 0


def _end(state_dir: StateDir) -> None:
    """Kill the container's processes before the lock is requested.

    The holder of the lock may be waiting for one of them.
    """
    try:
        record = state_dir.load()
    except NotFound:
        return
    if not record.owns_cgroup():
        return
    try:
        Path(record.cgroup, "cgroup.kill").write_text("1", encoding="ascii")
    except FileNotFoundError:
        return


async def _delete(context: Context, state_dir: StateDir, force: bool) -> None:
    try:
        observed = state_dir.observe()
        if observed.status is not Status.STOPPED and not force:
            raise WrongState(f"cannot delete container {state_dir.id!r} that is not stopped: {observed.status.value}")
        container = load_container(state_dir, observed)
    except NotFound:
        if force:
            # A creation that was interrupted before it had made anything.
            state_dir.remove()
        raise
    await container.remove()
    context.log.warnings(container.warnings)
    state_dir.remove()


OPTIONS = (Option("force", "kill it first if it runs; not to exist is no error", short="f"), NO_REGEX)
COMMANDS = (Command("delete", "delete a stopped container", delete, options=OPTIONS),)
