"""`state` and `list`: the containers and their statuses."""

from agent.errors import NotFound
from agent.oci.arguments import FORMAT, Option, Parsed
from agent.oci.command_table import Command, Context
from agent.oci.output import compact, indented, table
from agent.oci.record import ObservedState
from agent.oci.state_dir import StateDir, state_dirs


def state(context: Context, parsed: Parsed) -> int:
    """Run `state`. Return the exit status."""
    with StateDir.open(context.root, parsed.arguments[0]) as state_dir:
        print(indented(state_dir.observe().document(), "  "))
    return 0


def list_(context: Context, parsed: Parsed) -> int:
    """Run `list`. Return the exit status.

    The default root may be missing: it then has no containers. A missing --root is an error.
    """
    if context.root_given and not context.root.is_dir():
        raise NotFound(f"--root: {context.root} is not a directory that is there")
    found: list[ObservedState] = []
    for state_dir in state_dirs(context.root):
        try:
            found.append(state_dir.observe())
        except NotFound:
            continue  # it has just been deleted
    if parsed.switch("quiet"):
        for observed in found:
            print(observed.record.id)
    elif parsed.text("format", "table") == "json":
        print(compact([observed.document() for observed in found] or None))
    else:
        rows = [[c.record.id, str(c.pid), c.status.value, c.record.bundle, c.record.created, c.record.owner] for c in found]
        print(table(["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"], rows))
    return 0


COMMANDS = (
    Command("state", "print the state of a container as JSON", state),
    Command("list", "list containers", list_, arguments="", options=(FORMAT, Option("quiet", "ids only", short="q"))),
)
