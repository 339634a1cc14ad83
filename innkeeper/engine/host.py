"""What a VM needs of this host: programs, which are installed or built, and the proof of KVM."""

from pathlib import Path

from innkeeper import programs
from innkeeper.vm import HostPrograms, VirtualMachine, VmConfig, accel, registry
from innkeeper.vm.vsock import kernel_works


def prepare(kernel: Path, *, accelerator: str | None, shares: bool, vsock: bool = False) -> HostPrograms:
    """Return the programs for a VM. Install or build what is missing. Raises InnkeeperError.

    With `vsock` that includes vhost-device-vsock, if the kernel's vsock does not work. If no
    accelerator is asked for, also prove once per boot of the host, with `kernel`, whether KVM
    works.
    """
    helper = None
    if vsock and not kernel_works():
        from innkeeper.guest.host_programs import vhost_device_vsock  # with it the whole build of the guest

        helper = vhost_device_vsock()
    found = programs.require_all(("qemu-system-x86_64", "setpriv", *(("virtiofsd",) if shares else ())))
    host = HostPrograms(
        qemu=found["qemu-system-x86_64"],
        setpriv=found["setpriv"],
        virtiofsd=found.get("virtiofsd"),
        vhost_device_vsock=helper,
    )
    accel.choose(accelerator, kernel, host)
    return host


def virtual_machine(config: VmConfig, entry: registry.Entry | None = None, *, vsock: bool = False) -> VirtualMachine:
    """Return a VM on this host, not started. For `vsock` see `prepare`.

    Raises InnkeeperError.
    """
    host = prepare(config.kernel, accelerator=config.accel, shares=bool(config.shares), vsock=vsock)
    return VirtualMachine(config, host, entry)
