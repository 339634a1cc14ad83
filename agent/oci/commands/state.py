"""`state` and `list`: the containers and their statuses."""

from agent.errors import NotFound
from agent.oci.arguments import Option, Parsed
from agent.oci.command_table import Context, Verb
from agent.oci.state_dir import Place, places
from agent.oci.status import Condition, condition_of
from agent.oci.tables import compact, indented, table


def state(context: Context, parsed: Parsed) -> int:
    """Run `state`. Return the exit status."""
    with Place.find(context.root, parsed.words[0]) as place:
        print(indented(condition_of(place).document(), "  "))
    return 0


def list_(context: Context, parsed: Parsed) -> int:
    """Run `list`. Return the exit status.

    The default root may be missing: it then has no containers. A missing --root is an error.
    """
    if context.root_given and not context.root.is_dir():
        raise NotFound(f"--root: {context.root} is not a directory that is there")
    found: list[Condition] = []
    for place in places(context.root):
        try:
            found.append(condition_of(place))
        except NotFound:
            continue  # it has just been deleted
    if parsed.switch("quiet"):
        for condition in found:
            print(condition.record.id)
    elif parsed.text("format", "table") == "json":
        print(compact([condition.document() for condition in found] or None))
    else:
        rows = [[c.record.id, str(c.pid), c.status.value, c.record.bundle, c.record.created, c.record.owner] for c in found]
        print(table(["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"], rows))
    return 0


FORMAT = Option("format", "table or json", "FORMAT", short="f", choices=("table", "json"))
VERBS = (
    Verb("state", "print the state of a container as JSON", state),
    Verb("list", "list containers", list_, words="", options=(FORMAT, Option("quiet", "ids only", short="q"))),
)
