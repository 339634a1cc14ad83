"""The host's memory before, at, and after a burst of memory in a container.

Two guests run at the same time: one gives free pages back to the host, the other does not.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.figures import Section, single
from bench.guest import HOLDER, holding
from innkeeper.guest import Artifacts
from innkeeper.image import Image
from innkeeper.vm import process_info

BURST_MIB = 1024
SETTLE_SECONDS = 30.0
VM_MIB = 2048
KEPT_BUDGET = 0.25
"""How much of the burst the host may still be missing afterwards."""
SUBJECTS = {"free pages given back": True, "without that": False}


def section(artifacts: Artifacts, image: Image, folder: Path, accel: str | None, sleep: Callable[[float], None] = time.sleep) -> Section:
    """Return the section of QEMU's memory (Pss) in megabytes."""
    result = Section("host memory of a VM", note=f"a burst of {BURST_MIB} MiB in a container")
    with ExitStack() as stack:
        guests = {}
        for number, (name, given) in enumerate(SUBJECTS.items()):
            own = folder / f"memory-{number}"
            guests[name] = stack.enter_context(holding(artifacts, image, own, accel, memory_mib=VM_MIB, gives_memory_back=given))
        sleep(SETTLE_SECONDS)  # what the boot freed is given back first
        before = {name: process_info.memory(guest.pid) for name, guest in guests.items()}
        peaks = {}
        for name, guest in guests.items():
            # One block, so dd touches a buffer of the size of the burst.
            guest.containers.exec(HOLDER, ["/bin/dd", "if=/dev/zero", "of=/dev/null", f"bs={BURST_MIB}M", "count=1"])
            peaks[name] = process_info.memory(guest.pid)
        sleep(SETTLE_SECONDS)
        after = {name: process_info.memory(guest.pid) for name, guest in guests.items()}
    for name, given in SUBJECTS.items():
        kept = (after[name] - before[name]) / (BURST_MIB << 20)
        limit = (f"at most {KEPT_BUDGET:g} of the burst kept", kept <= KEPT_BUDGET) if given else ("", None)
        result.figures += [
            single(f"{name}: before", "MB", before[name] / 1e6),
            single(f"{name}: at the burst's end", "MB", peaks[name] / 1e6),
            single(f"{name}: {SETTLE_SECONDS:.0f} s later", "MB", after[name] / 1e6, *limit),
        ]
    return result
