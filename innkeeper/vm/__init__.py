"""The virtual machine: QEMU, accelerator, vsock, disks, shares, network, console, lifetime."""

from typing import TYPE_CHECKING, Any

from innkeeper.vm.config import AGENT_PORT, Disk, Forward, HostPrograms, Share, SharedPath, VmConfig

if TYPE_CHECKING:
    from innkeeper.vm.vm import VirtualMachine

__all__ = ["AGENT_PORT", "Disk", "Forward", "HostPrograms", "VirtualMachine", "VmConfig", "Share", "SharedPath"]


def __getattr__(name: str) -> Any:
    """Import the VM itself when it is asked for: `ps` reads the registry only."""
    if name == "VirtualMachine":
        from innkeeper.vm.vm import VirtualMachine

        return VirtualMachine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
