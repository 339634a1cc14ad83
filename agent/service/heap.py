"""Give the memory of large requests back to the kernel, once they are over.

The C library keeps what is freed below memory in use, and a request of a megabyte becomes thousands
of objects. Without this, PID 1 stays as large as its largest requests have made it.
"""

from agent.loop import sleep, spawn

LARGE = 64 << 10
"""Size in bytes of the requests that are followed by a look at the heap."""
DELAY = 1.0
"""Seconds until then. Many such requests are followed by one look in each."""

_planned = False


def request_ended(size: int) -> None:
    """Trim the heap soon if the request that has ended was large."""
    global _planned
    if size >= LARGE and not _planned:
        _planned = True
        spawn(_trim(), name="trim")


async def _trim() -> None:
    global _planned
    try:
        await sleep(DELAY)
    finally:
        _planned = False
    from agent.linux import libc  # with ctypes, which the agent listens without

    libc.trim_heap()
