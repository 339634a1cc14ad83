"""The guest's console: a file that outlives the guest, read for errors and logs."""

import os
import re
from pathlib import Path

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[@-~])")
_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
TAIL_BYTES = 65536


def tail(path: Path, lines: int) -> list[str]:
    """Return the last lines, or [] if there is no such file.

    Escape sequences and empty lines are removed.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    text = _ESCAPES.sub("", text).replace("\r", "")
    text = "".join(c for c in text if c in "\n\t" or c.isprintable())
    kept = [line.rstrip() for line in text.split("\n") if line.strip()]
    return kept[-lines:] if lines > 0 else []


def panic(path: Path) -> str | None:
    """Return the kernel's reason if it panicked, else None."""
    for line in reversed(tail(path, 400)):
        if match := _PANIC.search(line):
            return match[1].strip()
    return None


def ran_out_of_memory(path: Path) -> bool:
    """Return whether the kernel killed a process, or panicked, because it was out of memory."""
    return any("Out of memory" in line or "System is deadlocked on memory" in line for line in tail(path, 400))
