"""Unix sockets whose path may be too long for an address (`sun_path` has 108 bytes)."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 100
"""Bytes of a path that is used directly, below the limit of 108."""


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Context manager: yield a name for `path` that fits into a socket address.

    A long path is replaced by one through a descriptor of its folder, so it is valid only inside
    the `with`.
    """
    if len(os.fsencode(path)) <= LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen(path: Path) -> socket.socket:
    """Return a unix stream socket that listens at `path`, which must not exist. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with short_path(path) as name:
            sock.bind(name)
        sock.listen(16)
    except OSError:
        sock.close()
        raise
    return sock


def connect(path: Path, timeout: float | None = None) -> socket.socket:
    """Return a unix stream socket connected to `path`. `timeout` is in seconds. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout)
        with short_path(path) as name:
            sock.connect(name)
    except OSError:
        sock.close()
        raise
    return sock
