"""End of the VM: sync(2), reboot(2)."""

import ctypes
import os

RB_AUTOBOOT = 0x01234567
RB_POWER_OFF = 0x4321FEDC


def end_vm() -> None:
    """Flush filesystems and end the VM at once. Returns only if the kernel refuses.

    A VM without ACPI cannot power off: the kernel would halt and the hypervisor run on. So if the
    kernel has no ACPI, or INNKEEPER_POWEROFF=restart is on the kernel's command line, the VM resets
    instead. A hypervisor that runs with reboots disabled (QEMU's -no-reboot) ends on a reset.
    """
    os.sync()
    libc = ctypes.PyDLL(None)
    if os.environ.get("INNKEEPER_POWEROFF") != "restart" and os.path.isdir("/sys/firmware/acpi/tables"):
        libc.reboot(ctypes.c_int(RB_POWER_OFF))
    libc.reboot(ctypes.c_int(RB_AUTOBOOT))
