"""Give the memory of large requests back to the kernel, once they are over.

The C library keeps what is freed below memory in use, and a request of a megabyte becomes thousands
of objects. Without this, PID 1 stays as large as its largest requests have made it.
"""

from agent.linux.libc import trim_heap
from agent.loop import sleep, spawn

DELAY = 1.0
"""Seconds from the end of a large request until the heap is trimmed.

More such requests wait for the same trim.
"""

_planned = False


def trim_soon() -> None:
    """Trim the heap in a task of its own, after DELAY."""
    global _planned
    if not _planned:
        _planned = True
        spawn(_trim(), name="trim")


async def _trim() -> None:
    global _planned
    try:
        await sleep(DELAY)
    finally:
        _planned = False
    trim_heap()
