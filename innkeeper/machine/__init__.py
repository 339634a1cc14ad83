"""Deprecated name of `innkeeper.vm`, kept until 0.2 for programs written against the old one."""

from innkeeper.vm import AGENT_PORT, Disk, Forward, Machine, MachineSpec, Share, SharedPath

__all__ = ["AGENT_PORT", "Disk", "Forward", "Machine", "MachineSpec", "Share", "SharedPath"]
