"""Make the template that VMs of the shim start from: `python3 -m innkeeper.shim.templates`.

Somebody asks for it, because the shim is no place for it: its process may be in a pod's cgroup, and
a pod does not pay for others.
"""

import argparse
import os
import sys

from innkeeper import paths, programs
from innkeeper.engine import clones, template_maker
from innkeeper.errors import InnkeeperError
from innkeeper.shim import settings
from innkeeper.shim.machine import configuration
from innkeeper.shim.spec import Size
from innkeeper.vm import template


def make(config_path: str = "", memory_mib: int | None = None) -> str:
    """Make a template for VMs of the configuration with this memory, unless there is one. Return its key.

    Raises InnkeeperError.
    """
    found = settings.load(config_path)
    os.environ[paths.TEMPLATES_VARIABLE] = str(found.templates)
    os.environ[programs.NO_INSTALL_ENV] = "1"
    size = Size(memory=max(memory_mib - found.overhead_mib, 0) << 20 if memory_mib is not None else 0, cpus=found.cpus)
    config = clones.configuration(configuration(found, size))
    if config is None:
        raise InnkeeperError("no templates are made for such a VM", hint=f"memory in MiB: {clones.MEMORY_CLASSES_MIB}")
    key = template_maker.make(config, found.host, again=True)
    if key is None:
        raise InnkeeperError(f"no template could be made: {template.summary()[2]}")
    return key


def main() -> int:
    """Make what the command line asks for. Return the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m innkeeper.shim.templates", description="Make a template for the VMs of the shim.")
    parser.add_argument("--config", default="", metavar="FILE", help=f"the shim's configuration [{settings.PATH}]")
    parser.add_argument("--memory", type=int, metavar="MIB", help="for VMs of at least this size [memory_mib of the configuration]")
    arguments = parser.parse_args()
    try:
        print(make(arguments.config, arguments.memory))
    except (InnkeeperError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
