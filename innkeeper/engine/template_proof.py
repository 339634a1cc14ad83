"""Prove that VMs start from a template on this host, for `doctor`."""

import time
from contextlib import ExitStack
from dataclasses import replace

from innkeeper.engine import host, resolve, templates, warm_up
from innkeeper.engine.resolve import RunRequest
from innkeeper.errors import InnkeeperError
from innkeeper.guest import BootFiles
from innkeeper.image import RunOptions
from innkeeper.vm import CloneableVm, registry


def prove(boot: BootFiles) -> float:
    """Start a VM from the template of an ordinary `run`, and end it.

    Return the seconds of the start. The template is made if there is none. Its clone has passed all
    of the contract (docs/templates.md) when this returns. Raises InnkeeperError.
    """
    request = RunRequest(reference="", start=resolve.TEMPLATE)
    with ExitStack() as stack:
        entry = registry.create()
        stack.callback(entry.release)
        programs = host.prepare(boot.kernel, accelerator=None, shares=False)
        config = templates.configuration(request, resolve.vm_config(request, RunOptions(), boot))
        if config is None:
            raise InnkeeperError("no templates are made for such a VM")
        vm = CloneableVm(replace(config, disks=warm_up.disks(entry.folder)), programs, entry)
        key = vm.template_key()
        templates.make_now(programs, vm.config, key)
        begun = time.monotonic()
        started, client = templates.start_required(vm, programs, key)
        stack.callback(started.end)
        client.close()
        return time.monotonic() - begun
