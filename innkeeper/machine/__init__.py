"""Deprecated name of `innkeeper.vm`, kept until 0.2 for programs written against the old one."""

from innkeeper.engine import host
from innkeeper.vm import AGENT_PORT, Disk, Forward, Share, SharedPath, VirtualMachine, registry
from innkeeper.vm import VmConfig as MachineSpec

__all__ = ["AGENT_PORT", "Disk", "Forward", "Machine", "MachineSpec", "Share", "SharedPath"]


class Machine(VirtualMachine):
    """A VM on this host, whose programs it finds, installs or builds by itself."""

    def __init__(self, spec: MachineSpec, entry: registry.Entry | None = None) -> None:
        shares = bool(spec.shares)
        super().__init__(spec, host.prepare(spec.kernel, accelerator=spec.accel, shares=shares, machine_type=spec.machine_type), entry)
        self.spec = spec
