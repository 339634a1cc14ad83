"""The boot of a VM, with a second attempt for a guest that a fault of QEMU ended."""

from collections.abc import Callable

from innkeeper import progress
from innkeeper.errors import InnkeeperError
from innkeeper.vm import console
from innkeeper.vm.vm import VirtualMachine


def boot(vm: VirtualMachine, timeout: float, started: Callable[[], object] = lambda: None) -> None:
    """Start the VM, call `started`, and wait until its agent answers. Raises InnkeeperError.

    QEMU before 8.1 (Debian 12 has 7.2) emulates several processors with a fault: one of them may
    run a translation of code that another has patched meanwhile. Debian's kernel patches its code
    while it boots, by way of a breakpoint (text_poke_bp), and panics about one boot in eighty.
    Ours has no jump labels. Such a guest is started once more. `timeout` in seconds is for each
    attempt.
    """

    def attempt() -> None:
        vm.start()
        started()
        vm.wait_ready(timeout)

    try:
        attempt()
    except InnkeeperError:
        if not _broken_by_emulator(vm):
            raise
        progress.warn("the emulator broke the guest's kernel while it booted (QEMU before 8.1 does, int3): booting it once more")
        vm.end()
        attempt()


def _broken_by_emulator(vm: VirtualMachine) -> bool:
    return vm.accel == "tcg" and console.panic(vm.console_path) is not None and console.met_breakpoint(vm.console_path)
