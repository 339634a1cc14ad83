"""Start the VM of a container or a pod from a template.

Somebody has made it (`innkeeper shim template`): this process may be in a pod's cgroup, which would
pay for it. It is one for VMs of exactly this size: what a VM has more than its cgroup may use would
be its end.
"""

import os
from dataclasses import replace
from pathlib import Path

from innkeeper import paths
from innkeeper.client import Client, RpcError
from innkeeper.engine import clones
from innkeeper.errors import InnkeeperError
from innkeeper.shim import log
from innkeeper.shim.settings import Settings
from innkeeper.vm import CloneableVm, VmConfig, registry


def start(config: VmConfig, settings: Settings, folder: Path) -> tuple[CloneableVm, Client] | None:
    """Return the running VM and a connection to its agent, or None to boot instead.

    There may be no template for it, or one that does not load, which is removed. Raises OSError.
    """
    if len(config.taps) > 1 or not settings.templates.is_dir() or (clone := clones.configuration(config)) is None:
        return None
    os.environ[paths.TEMPLATES_VARIABLE] = str(settings.templates)
    clone = replace(clone, disks=clones.unused_disks(clone, folder))
    vm = CloneableVm(clone, settings.host, registry.outside(folder.name, folder))
    try:
        return clones.load(vm, vm.template_key())
    except (InnkeeperError, RpcError, OSError) as error:
        log.error(f"the guest's template cannot be used, booting instead: {error}")
        return None
