"""`explain` and `features`: what would be done for a specification, and what can be done here."""

import json
from pathlib import Path

from agent.container.explain import plan_lines
from agent.container.features import features
from agent.container.spec.document import parse_spec
from agent.oci import bundle
from agent.oci.arguments import Parsed
from agent.oci.command_table import Command, Context


def explain(context: Context, parsed: Parsed) -> int:
    """Run `explain`. Return the exit status. The argument is a config.json or a bundle."""
    path = Path(parsed.arguments[0]).absolute()
    folder, file = (path, path / bundle.CONFIG) if path.is_dir() else (path.parent, path)
    spec = parse_spec(bundle.read_json(file, parsed.arguments[0]), bundle=str(folder))
    for line in plan_lines(spec, bundle.host(context.root, folder)):
        print(line)
    return 0


def print_features(context: Context, parsed: Parsed) -> int:
    """Run `features`. Return the exit status."""
    print(json.dumps(features(bundle.cgroup_mount()), indent=2))
    return 0


COMMANDS = (
    Command("explain", "print the plan of a specification without executing it", explain, arguments="SPEC"),
    Command("features", "print what is supported here as JSON", print_features, arguments=""),
)
