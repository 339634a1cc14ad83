"""The virtual machine: QEMU, accelerator, vsock, disks, shares, network, console, lifetime."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from innkeeper.vm.clone import CloneableVm
    from innkeeper.vm.config import Disk, Forward, HostPrograms, Share, SharedPath, Tap, VmConfig
    from innkeeper.vm.snapshot import RestoredVm
    from innkeeper.vm.vm import VirtualMachine

__all__ = [
    "AGENT_PORT",
    "CloneableVm",
    "RestoredVm",
    "Disk",
    "Forward",
    "HostPrograms",
    "VirtualMachine",
    "VmConfig",
    "Share",
    "SharedPath",
    "Tap",
]

AGENT_PORT = 1024
"""vsock port of the agent's ttRPC server."""


def __getattr__(name: str) -> Any:
    """Import the VMs and their configuration on first use. `ps` reads the registry only."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "VirtualMachine":
        from innkeeper.vm.vm import VirtualMachine

        return VirtualMachine
    if name == "CloneableVm":
        from innkeeper.vm.clone import CloneableVm

        return CloneableVm
    if name == "RestoredVm":
        from innkeeper.vm.snapshot import RestoredVm

        return RestoredVm
    from innkeeper.vm import config

    return getattr(config, name)
