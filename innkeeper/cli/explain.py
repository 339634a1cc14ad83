"""The command `explain`: print what the container core would do for a specification."""

import os
from pathlib import Path

from innkeeper.cli import flags


def explain(spec: Path) -> None:
    """Print the plan of a specification, without running it.

    The plan has namespaces, control group, mounts, devices, and each step with its reason. The
    runtime command innkeeper-oci does it; it is built the first time, which takes a minute.
    """
    from innkeeper import paths
    from innkeeper.guest.oci_package import PROGRAM, freeze_command
    from innkeeper.guest.store import Store

    program = freeze_command(Store(paths.store_root()), paths.project_root()) / PROGRAM
    os.execv(program, [str(program), "explain", str(spec)])


COMMAND = flags.Command(
    name="explain",
    run=explain,
    arguments=(flags.Argument(field="spec", metavar="SPEC", kind=flags.PATH, help="A config.json of the OCI specification, or a bundle."),),
    examples=("explain config.json", "explain ./bundle", "build.py inspect web | jq .[0].spec >spec.json", "explain spec.json"),
)
