"""The C library, for system calls that Python has no function for. Their errors are OSErrors."""

import ctypes
import os
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, call: str = "", path: Path | str | None = None) -> int:
    """Return the result of a system call. Raises OSError with `call` and `path`, if given."""
    if result < 0:
        number = ctypes.get_errno()
        message = os.strerror(number)
        raise OSError(number, f"{call}: {message}" if call else message, path and str(path))
    return result
