"""The virtual machine: QEMU, accelerator, vsock, disks, shares, network, console, lifetime."""

from innkeeper.vm.config import AGENT_PORT, Disk, Forward, HostPrograms, Share, SharedPath, VmConfig
from innkeeper.vm.vm import VirtualMachine

__all__ = ["AGENT_PORT", "Disk", "Forward", "HostPrograms", "VirtualMachine", "VmConfig", "Share", "SharedPath"]
