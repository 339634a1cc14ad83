"""When the guest reached each stage of its boot (CLOCK_BOOTTIME, so counted from the kernel's start), and what was imported by then."""

import sys
import time

stages: "list[tuple[str, int]]" = []
startup_modules: "list[str]" = []


def mark(name: str) -> None:
    """Record a stage, once."""
    if all(name != known for known, _ in stages):
        stages.append((name, time.clock_gettime_ns(time.CLOCK_BOOTTIME)))


def mark_listening() -> None:
    """Record the stage that the import budget is about."""
    mark("listening")
    startup_modules[:] = sys.modules
