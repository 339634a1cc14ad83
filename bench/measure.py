"""Run all requested benchmarks, one after the other."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import against_kata, channels, commands, forks, guest, idle, kubernetes, memory, native, shares, shim
from bench.figures import Section
from bench.image import make_layout, make_root
from innkeeper import guest as build
from innkeeper import progress
from innkeeper.image import RunOptions, build_spec, resolve

PARTS = ("guest", "channels", "shares", "memory", "idle", "commands", "forks", "shim", "kubernetes", "native")
"""What can be measured by itself."""


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """What to measure, and how often."""

    parts: frozenset[str]
    """Which of `PARTS`."""
    rounds: int
    boots: int
    runs: int
    megabytes: int
    accel: str | None
    step_by_step: bool = False
    """Outside of a guest, measure only the steps of one container."""
    against: Path | None = None
    """A folder with Kata's guest, to compare ours with."""


def measure(request: BenchRequest) -> tuple[dict[str, str], list[Section]]:
    """Return (facts about this host, the sections). Nothing is left behind.

    Raises InnkeeperError.
    """
    host = _host()
    sections: list[Section] = []
    anchor = None if request.against is None else against_kata.Anchor.of(request.against)
    with tempfile.TemporaryDirectory(prefix="innkeeper-bench-") as name:
        folder = Path(name)
        rootfs = folder / "rootfs"
        make_root(rootfs)
        reference = make_layout(rootfs, folder / "layout")
        image = resolve(reference)
        if "guest" in request.parts:
            artifacts = build.build()
            sections.append(guest.sizes(artifacts))
            booted, host["machine"] = guest.boots(artifacts, request.boots, request.accel)
            sections += booted
            with progress.step("measuring in a warm guest"):
                sections += guest.warm(artifacts, image, folder, request.rounds, request.megabytes, request.accel)
        if "channels" in request.parts:
            with progress.step("measuring virtio-serial and vsock"):
                sections.append(channels.section(build.build(), image, folder, request.megabytes, request.accel))
        if "shares" in request.parts:
            with progress.step("measuring a folder of the host"):
                sections.append(shares.section(build.build(), image, folder, request.megabytes, request.runs, request.accel))
                sections.append(shares.runs(reference, folder, request.runs, request.accel))
        if "memory" in request.parts:
            with progress.step("measuring a burst of memory"):
                sections.append(memory.section(build.build(), image, folder, request.accel))
        if "idle" in request.parts:
            with progress.step("measuring idle containers"):
                sections.append(idle.section(reference, request.accel))
        if "commands" in request.parts:
            with progress.step("measuring commands"):
                sections += commands.sections(reference, folder, request.runs, request.accel)
        if "forks" in request.parts:
            with progress.step("measuring snapshots and forks"):
                sections.append(forks.section(reference, request.accel))
        if "shim" in request.parts:
            with progress.step("measuring under containerd"):
                sections += shim.sections(build.build(), request.runs)
        if "kubernetes" in request.parts:
            if reason := kubernetes.unavailable():
                sections.append(Section(kubernetes.TITLE, left_out=f"left out: {reason}"))
            else:
                with progress.step("measuring a Deployment of Kubernetes"):
                    sections.append(kubernetes.section(request.runs))
        if anchor is not None:
            with progress.step("measuring beside Kata's guest"):
                sections += against_kata.measure(build.build(), anchor, request.rounds)
        if "native" in request.parts:
            document: Any = build_spec(image, RunOptions(args=["/bin/true"]), container_id="bench", root_path=str(rootfs))
            # Defaults for a machine of one's own: root may lack the right to raise this host's
            # limit of open files, and the sysctls of its network are not the container's to set.
            document["process"].pop("rlimits", None)
            document["linux"].pop("sysctl", None)
            if reason := native.unavailable():
                sections.append(Section("containers outside of a guest", left_out=f"left out: {reason}"))
            else:
                with progress.step("measuring beside runc and crun"):
                    measured, versions = native.measure(
                        folder, document, rootfs, rounds=request.rounds, megabytes=request.megabytes, step_by_step=request.step_by_step
                    )
                sections += measured
                host |= versions
    return host, sections


def _host() -> dict[str, str]:
    system = os.uname()
    facts = {"kernel": system.release, "machine type": system.machine, "processors": str(os.cpu_count())}
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        facts["processor"] = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not every architecture names its processor there
    facts["load"] = f"{os.getloadavg()[0]:.1f}"
    return facts
