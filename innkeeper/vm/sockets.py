"""Unix sockets below folders whose path is longer than an address can hold (`sun_path` has 108 bytes)."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 100


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name for `path` that fits into a socket address, valid inside the `with`."""
    if len(os.fsencode(path)) <= LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen(path: Path) -> socket.socket:
    """A listening unix stream socket at `path` (which must not exist)."""
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
    """A unix stream socket connected to `path`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout)
        with short_path(path) as name:
            sock.connect(name)
    except OSError:
        sock.close()
        raise
    return sock
