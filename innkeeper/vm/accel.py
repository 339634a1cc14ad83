"""Choose the accelerator: KVM only after a guest has proven that it works here, else TCG.

On nested or paravirtualised hosts, /dev/kvm may open, create a VM and run real-mode code, and yet
hang or abort under a kernel. So the proof is the guest's own kernel: without a root it has to get
as far as panicking about that, and to reset, within `SECONDS`. The verdict is remembered until the
host reboots.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from innkeeper.vm import bootfacts
from innkeeper.vm.config import HostPrograms

SECONDS = 4.0
"""Timeout of the proof in seconds. A kernel under working KVM needs a tenth of it."""

PROOF = "Kernel panic - not syncing"
"""The console message that proves that the kernel ran."""
DEVICE = Path("/dev/kvm")


@dataclass(frozen=True)
class Verdict:
    """Whether KVM works, and the evidence in `why`, for `doctor` and for errors."""

    works: bool
    why: str


def choose(wanted: str | None, kernel: Path | None = None, host: HostPrograms | None = None) -> str:
    """Return "kvm" or "tcg". `wanted` overrides everything and is not even tried. See `kvm`."""
    return wanted or ("kvm" if kvm(kernel, host).works else "tcg")


def kvm(kernel: Path | None, host: HostPrograms | None = None) -> Verdict:
    """Return whether KVM works here, proven with `kernel` at most once per boot of the host.

    Without a kernel or the programs of `host`, return what is already known.
    """
    if not DEVICE.exists():
        return Verdict(False, f"there is no {DEVICE}")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return Verdict(False, f"{DEVICE} may not be opened by this user")
    if isinstance(known := bootfacts.recall("kvm"), dict):
        return Verdict(bool(known.get("works")), str(known.get("why")))
    if kernel is None or host is None:
        return Verdict(False, "not proven yet: that takes QEMU and a built guest kernel")
    verdict = prove(kernel, host)
    bootfacts.remember("kvm", {"works": verdict.works, "why": verdict.why})
    return verdict


def proof_arguments(program: str, kernel: Path) -> list[str]:
    """Return QEMU's command line for the proof: only the kernel, its console on standard output."""
    argv = [program, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35", "-accel", "kvm", "-cpu", "host"]
    return [*argv, "-m", "128M", "-kernel", str(kernel), "-append", "console=ttyS0 panic=-1 reboot=t quiet", "-serial", "stdio"]


def prove(kernel: Path, host: HostPrograms) -> Verdict:
    """Run `kernel` under KVM until it panics because it has no root."""
    argv = [str(host.setpriv), "--pdeathsig", "KILL", "--", *proof_arguments(str(host.qemu), kernel)]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Verdict(False, f"a guest hung under it for {SECONDS:.0f} s")
    if PROOF in done.stdout.decode(errors="replace"):
        return Verdict(True, "a guest kernel ran under it")
    stderr = done.stderr.decode(errors="replace").strip().splitlines()
    return Verdict(False, f"a guest ended under it: {stderr[-1] if stderr else f'status {done.returncode}'}")
