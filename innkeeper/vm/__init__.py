"""The virtual machine: QEMU, accelerator, vsock, disks, shares, network, console, lifetime."""

from innkeeper.vm.config import AGENT_PORT, Disk, Forward, HostPrograms, MachineSpec, Share, SharedPath
from innkeeper.vm.vm import Machine

__all__ = ["AGENT_PORT", "Disk", "Forward", "HostPrograms", "Machine", "MachineSpec", "Share", "SharedPath"]
