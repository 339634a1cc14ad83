"""The record by which a child reports the step that failed. A child that dies reports nothing.

Its fields are `error`, the step, errno, a text and a path, separated by NUL.
"""

import errno
import os

from agent.errors import StepFailed

RECORD_MAX = 4096
FIELDS = 5


def encode(step: str, error: BaseException) -> bytes:
    """Return the record for an exception that has ended `step`."""
    number, text, path = 0, f"{type(error).__name__}: {error}", b""
    if isinstance(error, OSError):
        number, text, name = error.errno or 0, error.strerror or str(error), error.filename
        path = name if isinstance(name, bytes) else os.fsencode(str(name)) if name is not None else b""
    return b"\0".join([b"error", step.encode(), b"%d" % number, os.fsencode(text), path])[:RECORD_MAX]


def decode(record: bytes, status: int | None) -> StepFailed:
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
