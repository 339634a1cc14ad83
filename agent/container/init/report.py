"""What a child reports before it executes its program: an error record, or nothing if it dies."""

import errno
import os
import signal

from agent import loop
from agent.errors import StepFailed
from agent.linux import process as p
from agent.linux.reaper import Child, reaper

FIELDS = 5  # the word "error", step, errno, text, path


def failure(record: bytes, status: int | None) -> StepFailed:
    """Return the error for a record other than the expected one.

    `status` is the child's exit status if it has ended.
    """
    parts = record.split(b"\0")
    if len(parts) < FIELDS or parts[0] != b"error":
        return StepFailed("contain", f"the child ended in set-up (status {status})" if not record else f"odd record {record!r}")
    step, number, text, path = (os.fsdecode(part) for part in parts[1:FIELDS])
    detail = f"{path}: {text}" if path else text
    if step == "find program" and int(number) == errno.ENOENT:
        detail = f"{path}: not found ({text})"
    return StepFailed(step, detail, int(number))


async def end_child(child: Child) -> None:
    """Kill a process that has done its part, and reap it. Closes its pidfd."""
    try:
        p.pidfd_send_signal(child.pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        await loop.exited(child.pidfd)
        reaper.collect(child)
    finally:
        os.close(child.pidfd)
