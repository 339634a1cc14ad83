"""Show what a VM under the shim does while a command waits for it.

The guest, the vsock daemon or the shim may be the reason.
"""

import os
import time
from pathlib import Path

from innkeeper.vm import console

LINES = 5
"""Lines of a console or of a log to show."""
SAMPLE_SECONDS = 1.0


def describe(folder: Path, cid: int, qemu: int, answered: bool) -> str:
    """Return what the VM is doing, and the ends of its console and of its vsock daemon's log.

    `folder` is the node's, `qemu` a process id, and `answered` whether its agent has answered a
    Check. Takes SAMPLE_SECONDS.
    """
    busy = _busy(qemu)
    state = "its QEMU has ended" if busy is None else f"its QEMU uses {busy:.0%} of a processor"
    agent = "its agent has answered" if answered else "its agent has not answered yet"
    said = [f"{agent}, and {state}"]
    for title, name in (("console", f"{cid}.console"), ("vsock daemon", f"{cid}.log")):
        lines = console.tail(folder / "vsock" / name, LINES)
        said.append(f"{title}: {' | '.join(lines) if lines else 'no output'}")
    return "; ".join(said)


def _busy(pid: int) -> float | None:
    """Return the part of a processor that a process uses, or None if it has ended."""
    try:
        before, begin = _processor_seconds(pid), time.monotonic()
        time.sleep(SAMPLE_SECONDS)
        return (_processor_seconds(pid) - before) / (time.monotonic() - begin)
    except OSError:
        return None


def _processor_seconds(pid: int) -> float:
    """Return the processor time of a process, user and system (proc_pid_stat(5)).

    Raises OSError if it has ended.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
