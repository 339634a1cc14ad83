"""Choose the accelerator: KVM only after a guest has proven that it works here, else TCG.

On nested or paravirtualised hosts, /dev/kvm may open, create a VM and run real-mode code, and yet
hang or abort under a kernel. So the proof is the guest's own kernel: without a root it has to get
as far as panicking about that, and to reset, within `SECONDS`. Such hosts often fail at one feature
of the processor, so a guest with fewer of them is tried too. The verdict, and the CPU model that
worked, are remembered until the host reboots.
"""

import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from innkeeper.vm import bootfacts, console
from innkeeper.vm.config import HostPrograms

SECONDS = 4.0
"""Timeout of each proof in seconds. A kernel under working KVM needs a tenth of it."""

HOST = "host"
"""The CPU model that passes on all that KVM can: the first choice."""
FEWER = "host,pmu=off,-arch-capabilities,-kvm-asyncpf,-kvm-steal-time,-kvm-pv-eoi"
"""The same without what takes model-specific registers that a nested KVM may refuse to write.

The guest loses counters and shortcuts. Without the register of capabilities it takes the processor
for vulnerable, and mitigates.
"""
BASELINE = "kvm64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+lahf-lm"
"""A processor of 2009 (x86-64-v2, which current distributions are compiled for)."""
REDUCED = (FEWER, BASELINE)
"""CPU models that are tried if `HOST` fails.

No parameter of the kernel is tried with them: those that help on broken hosts, as nopti and noapic,
switch off mitigations or interrupts that a working guest needs.
"""

PROOF = "Kernel panic - not syncing"
"""The console message that proves that the kernel ran."""
DEVICE = Path("/dev/kvm")


@dataclass(frozen=True)
class Verdict:
    """The verdict on KVM: whether it works, with which `-cpu`, and the evidence.

    `doctor` and errors show it.
    """

    works: bool
    why: str
    cpu: str = HOST


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
    if (known := _recall()) is not None:
        return known
    if kernel is None or host is None:
        return Verdict(False, "not proven yet: that takes QEMU and a built guest kernel")
    verdict = prove(kernel, host)
    bootfacts.remember("kvm", asdict(verdict))
    return verdict


def cpu_model() -> str:
    """Return the value of `-cpu` under KVM: the one that is proven, or `HOST` without a proof."""
    known = _recall()
    return known.cpu if known is not None and known.works else HOST


def _recall() -> Verdict | None:
    known = bootfacts.recall("kvm")
    if not isinstance(known, dict) or "cpu" not in known:
        return None  # nothing is known, or by a version that tried one model
    return Verdict(bool(known.get("works")), str(known.get("why")), str(known["cpu"]))


def proof_arguments(program: str, kernel: Path, cpu: str) -> list[str]:
    """Return QEMU's command line for the proof: only the kernel, its console on standard output."""
    argv = [program, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35", "-accel", "kvm", "-cpu", cpu]
    # Not `quiet`, and from the first line on: the last line tells where a guest hung.
    line = "console=ttyS0 earlyprintk=ttyS0 panic=-1 reboot=t"
    return [*argv, "-m", "128M", "-kernel", str(kernel), "-append", line, "-serial", "stdio"]


def prove(kernel: Path, host: HostPrograms) -> Verdict:
    """Run `kernel` under KVM without a root until it panics, with one CPU model after another.

    The models after the first are tried at once, because each that hangs takes `SECONDS`.
    """
    first = _try(kernel, host, HOST)
    if first.works:
        return first
    from concurrent.futures import ThreadPoolExecutor  # not for a verdict that is known already

    with ThreadPoolExecutor() as pool:
        tried = [first, *pool.map(lambda cpu: _try(kernel, host, cpu), REDUCED)]
    evidence = "; ".join(f"-cpu {verdict.cpu}: {verdict.why}" for verdict in tried if not verdict.works)
    best = next((verdict for verdict in tried if verdict.works), None)
    return Verdict(False, evidence) if best is None else Verdict(True, f"{best.why} with -cpu {best.cpu} ({evidence})", best.cpu)


def _try(kernel: Path, host: HostPrograms, cpu: str) -> Verdict:
    argv = [str(host.setpriv), "--pdeathsig", "KILL", "--", *proof_arguments(str(host.qemu), kernel, cpu)]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as late:
        return Verdict(False, f"a guest hung for {SECONDS:.0f} s, {_last_line(late.stdout or b'')}", cpu)
    if PROOF in done.stdout.decode(errors="replace"):
        return Verdict(True, "a guest kernel ran", cpu)
    errors = console.plain_lines(done.stderr)
    error = f" ({errors[-1]})" if errors else ""
    return Verdict(False, f"QEMU ended with {_status(done.returncode)}{error}, {_last_line(done.stdout)}", cpu)


def _status(returncode: int) -> str:
    return f"signal {-returncode}" if returncode < 0 else f"status {returncode}"


def _last_line(output: bytes) -> str:
    """Return what the guest's console said last, in words."""
    lines = console.plain_lines(output)
    return f"its console ends with {lines[-1]!r}" if lines else "its console stayed empty"
