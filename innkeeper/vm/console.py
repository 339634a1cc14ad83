"""The guest's console: a file that outlives the guest, read for errors and logs."""

import os
import re
from pathlib import Path

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[@-~])")
_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
_BREAKPOINT = re.compile(r"\bint3: [0-9a-f]{4} \[#")
TAIL_BYTES = 65536


def tail(path: Path, lines: int) -> list[str]:
    """Return the last lines as `plain_lines` does, or [] if there is no such file."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            kept = plain_lines(file.read())
    except FileNotFoundError:
        return []
    return kept[-lines:] if lines > 0 else []


def plain_lines(output: bytes) -> list[str]:
    """Return the lines of what a console said, without escape sequences and empty lines."""
    text = output.decode(errors="replace")
    text = _ESCAPES.sub("", text).replace("\r", "")
    text = "".join(c for c in text if c in "\n\t" or c.isprintable())
    return [line.rstrip() for line in text.split("\n") if line.strip()]


def panic(path: Path) -> str | None:
    """Return the kernel's reason if it panicked, else None."""
    for line in reversed(tail(path, 400)):
        if match := _PANIC.search(line):
            return match[1].strip()
    return None


def ran_out_of_memory(path: Path) -> bool:
    """Return whether the kernel killed a process, or panicked, because it was out of memory."""
    return any("Out of memory" in line or "System is deadlocked on memory" in line for line in tail(path, 400))


def met_breakpoint(path: Path) -> bool:
    """Return whether the kernel executed a breakpoint that it had not set, or no longer had.

    The kernel's arch/x86/kernel/traps.c reports `int3`.
    """
    return any(_BREAKPOINT.search(line) for line in tail(path, 400))
