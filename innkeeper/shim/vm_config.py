"""How large a VM is, and what it is made of: the settings, and the size of its containers."""

import os

from innkeeper.shim import port_forward
from innkeeper.shim.settings import Settings
from innkeeper.shim.spec import Size
from innkeeper.vm import VmConfig


def memory_mib(settings: Settings, size: Size) -> int:
    """Return the memory in MiB of a VM for containers of this size."""
    return max(settings.memory_mib, settings.overhead_mib + (size.memory >> 20)) if size.memory else settings.memory_mib


def configuration(settings: Settings, size: Size) -> VmConfig:
    """Return the configuration of a VM of this size, without its share and its network.

    It is also that of the template that such a VM starts from.
    """
    return VmConfig(
        kernel=settings.kernel,
        root=settings.root,
        initrd=settings.initrd,
        memory_mib=memory_mib(settings, size),
        cpus=min(max(settings.cpus, size.cpus), os.cpu_count() or 1),
        network=False,
        accel=settings.accelerator,
        machine_type=settings.machine_type,
        cmdline=(port_forward.PARAMETER, *settings.kernel_parameters),
        plugs_disks=True,
    )
