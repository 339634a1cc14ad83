"""What a VM needs of this host: programs, which are installed or built, and the proof of KVM."""

from pathlib import Path

from innkeeper import programs
from innkeeper.vm import HostPrograms, VirtualMachine, VmConfig, accel, registry
from innkeeper.vm.config import VIRT
from innkeeper.vm.vsock import kernel_works


def prepare(kernel: Path, *, accelerator: str | None, shares: bool, vsock: bool = False, machine_type: str | None = None) -> HostPrograms:
    """Return the programs for a VM. Install or build what is missing. Raises InnkeeperError.

    With `vsock` that includes vhost-device-vsock, if the kernel's vsock does not work. If no
    accelerator is asked for, also prove once per boot of the host, with `kernel`, whether KVM
    works. `machine_type` is the guest's, if it cannot be chosen.
    """
    helper = None
    if vsock and not kernel_works():
        from innkeeper.guest.host_programs import vhost_device_vsock  # with it the whole build of the guest

        helper = vhost_device_vsock()
    found = programs.require_all(
        ("qemu-system-aarch64" if machine_type == VIRT else "qemu-system-x86_64", "setpriv", *(("virtiofsd",) if shares else ()))
    )
    host = HostPrograms(
        qemu=found["qemu-system-aarch64" if machine_type == VIRT else "qemu-system-x86_64"],
        setpriv=found["setpriv"],
        virtiofsd=found.get("virtiofsd"),
        vhost_device_vsock=helper,
    )
    if machine_type != VIRT:
        accel.choose(accelerator, kernel, host)
    return host


def virtual_machine(config: VmConfig, entry: registry.Entry | None = None, *, vsock: bool = False) -> VirtualMachine:
    """Return a VM on this host, not started. For `vsock` see `prepare`.

    Raises InnkeeperError.
    """
    shares = bool(config.shares)
    host = prepare(config.kernel, accelerator=config.accel, shares=shares, vsock=vsock, machine_type=config.machine_type)
    return VirtualMachine(config, host, entry)
