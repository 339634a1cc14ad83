"""The stages of the boot and their times.

Times are those of CLOCK_BOOTTIME, so they count from the start of the kernel.
"""

import sys
import time

stages: "list[tuple[str, int]]" = []
"""(name, nanoseconds) of each stage, in order."""
startup_modules: "list[str]" = []
"""Names of the modules that were imported when the agent began to listen."""


def mark(name: str) -> None:
    """Record a stage. Only the first call for a name counts."""
    if all(name != known for known, _ in stages):
        stages.append((name, time.clock_gettime_ns(time.CLOCK_BOOTTIME)))


def mark_listening() -> None:
    """Record the stage `listening` and the modules that are imported by then.

    The import budget applies to these modules.
    """
    mark("listening")
    startup_modules[:] = sys.modules
