"""What a VM needs of this host: programs, which are installed or built, and the proof of KVM."""

from pathlib import Path

from innkeeper import programs
from innkeeper.guest.vsock_device import vhost_device_vsock
from innkeeper.vm import HostPrograms, VirtualMachine, VmConfig, accel, registry, vsock


def prepare(kernel: Path, *, accelerator: str | None, shares: bool) -> HostPrograms:
    """Return the programs for a VM. Install or build what is missing. Raises InnkeeperError.

    If no accelerator is asked for, also prove once per boot of the host, with `kernel`, whether KVM
    works.
    """
    found = programs.require_all(("qemu-system-x86_64", "setpriv", *(("virtiofsd",) if shares else ())))
    host = HostPrograms(
        qemu=found["qemu-system-x86_64"],
        setpriv=found["setpriv"],
        virtiofsd=found.get("virtiofsd"),
        vhost_device_vsock=None if vsock.kernel_works() else vhost_device_vsock(),
    )
    accel.choose(accelerator, kernel, host)
    return host


def virtual_machine(config: VmConfig, entry: registry.Entry | None = None) -> VirtualMachine:
    """Return a VM, not yet started, on this host. Raises InnkeeperError."""
    host = prepare(config.kernel, accelerator=config.accel, shares=bool(config.shares))
    return VirtualMachine(config, host, entry)
