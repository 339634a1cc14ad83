"""`explain`: print the plan of a specification without executing it."""

from pathlib import Path

from agent.container.explain import plan_lines
from agent.container.spec.document import parse_spec
from agent.oci import bundle
from agent.oci.arguments import Parsed
from agent.oci.command_table import Command, Context


def explain(context: Context, parsed: Parsed) -> int:
    """Run the subcommand. Return the exit status. The word is a config.json or a bundle."""
    path = Path(parsed.arguments[0]).absolute()
    folder, file = (path, path / bundle.CONFIG) if path.is_dir() else (path.parent, path)
    spec = parse_spec(bundle.absolute_paths(bundle.read_json(file, parsed.arguments[0]), folder))
    for line in plan_lines(spec, bundle.host(context.root, folder)):
        print(line)
    return 0


COMMANDS = (Command("explain", "print the plan of a specification without executing it", explain, arguments="SPEC"),)
