"""What the VMs of the pool are: those of `run IMAGE` without options for the VM."""

from dataclasses import replace

from innkeeper import guest
from innkeeper.engine import host, resolve, templates, warm_up, warm_vm
from innkeeper.engine.pool import Kind
from innkeeper.engine.resolve import RunRequest
from innkeeper.errors import InnkeeperError
from innkeeper.image import RunOptions
from innkeeper.vm import CloneableVm, HostPrograms, VmConfig, registry, template


def default() -> Kind:
    """Return the kind of VM that most runs use.

    Builds the guest if needed. Raises InnkeeperError.
    """
    registry.sweep()
    request = RunRequest(reference="")
    boot = guest.boot_files(request.guest, request.kernel)
    programs = host.prepare(boot.kernel, accelerator=request.accel, shares=False)
    config = templates.configuration(request, resolve.vm_config(request, RunOptions(), boot))
    if config is None:
        raise InnkeeperError("no templates are made for the VMs of this host", hint="docs/templates.md lists them")
    return _kind(config, programs)


def _kind(config: VmConfig, programs: HostPrograms) -> Kind:
    key = _key(config, programs)

    def make_template() -> None:
        if not template.exists(key):
            templates.make_now(programs, config, key)

    return Kind(key, lambda: warm_vm.WarmVm(config, programs), make_template)


def _key(config: VmConfig, programs: HostPrograms) -> str:
    """Return the key of the template, which depends on disks as a VM has them."""
    entry = registry.create()
    try:
        disks = warm_up.disks(entry.folder)
        return CloneableVm(replace(config, disks=disks), programs, entry).template_key()
    finally:
        entry.release()
