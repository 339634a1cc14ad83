"""The virtual machine: QEMU, its accelerator, vsock, disks, shares, network, console and lifetime."""

from innkeeper.machine.machine import Machine
from innkeeper.machine.spec import AGENT_PORT, Disk, Forward, MachineSpec, Share

__all__ = ["AGENT_PORT", "Disk", "Forward", "Machine", "MachineSpec", "Share"]
