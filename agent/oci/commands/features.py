"""`features`: what this runtime applies on this kernel, in the format of features.md."""

import json

from agent.container.features import features
from agent.oci import bundle
from agent.oci.arguments import Parsed
from agent.oci.command_table import Command, Context


def print_features(context: Context, parsed: Parsed) -> int:
    """Run the subcommand. Return the exit status."""
    print(json.dumps(features(bundle.cgroup_mount()), indent=2))
    return 0


COMMANDS = (Command("features", "print what is supported here as JSON", print_features, arguments=""),)
