"""End of the machine: sync(2), reboot(2)."""

import ctypes
import os

RB_AUTOBOOT = 0x01234567
RB_POWER_OFF = 0x4321FEDC


def end_machine() -> None:
    """Flush file systems and end the virtual machine at once. Returns only where the kernel refused.

    A machine without ACPI cannot power off: the kernel would halt and the monitor run on. Where the kernel knows of no ACPI, or
    INNKEEPER_POWEROFF=restart came with the kernel's command line, it resets instead: that ends a monitor told not to reboot.
    """
    os.sync()
    libc = ctypes.PyDLL(None)
    if os.environ.get("INNKEEPER_POWEROFF") != "restart" and os.path.isdir("/sys/firmware/acpi/tables"):
        libc.reboot(ctypes.c_int(RB_POWER_OFF))
    libc.reboot(ctypes.c_int(RB_AUTOBOOT))
