"""Make the template that VMs of the shim start from.

Somebody asks for it, because the shim is no place for it: its process may be in a pod's cgroup, and
a pod does not pay for others.
"""

import os
from dataclasses import replace

from innkeeper import paths, programs
from innkeeper.engine import clones, template_maker
from innkeeper.errors import InnkeeperError
from innkeeper.shim import settings
from innkeeper.shim.spec import Size
from innkeeper.shim.vm_config import configuration
from innkeeper.vm import template


def make(config_path: str = "", memory_mib: int | None = None, cpus: int | None = None) -> str:
    """Make a template for VMs of a configuration of the shim, unless there is one. Return its key.

    `memory_mib` and `cpus` are those of the VMs, in place of the configuration's. Raises
    InnkeeperError.
    """
    found = settings.load(config_path)
    os.environ[paths.TEMPLATES_VARIABLE] = str(found.templates)
    os.environ[programs.NO_INSTALL_ENV] = "1"
    config = configuration(found, Size(cpus=cpus or 0))
    clone = clones.configuration(replace(config, memory_mib=memory_mib or config.memory_mib))
    assert clone is not None, "it has no shares"
    key = template_maker.make(clone, found.host, again=True)
    if key is None:
        raise InnkeeperError(f"no template could be made: {template.summary()[2]}")
    return key
