"""Dial the address of an agent; unix sockets at paths of any length.

unix:///path            a unix stream socket (unix://@name is abstract)
vsock://CID:PORT        AF_VSOCK of the host's kernel
hybrid:///path:PORT     a unix socket whose server relays to a port of the guest after the line
                        "CONNECT PORT"
"""

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from innkeeper.errors import InnkeeperError

KICK_SECONDS = 0.3
"""Seconds to wait for an answer to CONNECT before the relay is woken with another connection.

vhost-device-vsock may sleep because it lost a notification: its vhost-user library drops one that
arrives before the queue is enabled. Any other event wakes it.
"""
PAUSE = 0.01
"""Seconds between attempts to connect to a socket with a full backlog."""
_SUN_PATH = 100
"""Longest path in bytes that is used in an address directly: `sun_path` has 108 (unix(7))."""
_SHORTEST = 0.001
"""The shortest socket timeout in seconds. A timeout of 0 would make the socket non-blocking."""
_MAX_GREETING = 64
"""Longest answer to CONNECT, in bytes."""
_U32 = (1 << 32) - 1


def dial(address: str, timeout: float | None = None) -> socket.socket:
    """Return a connected, blocking socket.

    Raises OSError (TimeoutError after `timeout` seconds), or InnkeeperError for a malformed
    address.
    """
    scheme, _, rest = address.partition("://")
    head, _, port = rest.rpartition(":")
    if scheme == "unix" and rest:
        return connect_unix(rest, timeout)
    if scheme == "vsock" and _is_u32(head) and _is_u32(port):
        return _connected(socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM), (int(head), int(port)), timeout)
    if scheme == "hybrid" and head and _is_u32(port):
        return _hybrid(head, int(port), timeout)
    raise InnkeeperError(f"malformed agent address {address!r}", hint="use unix:///path, vsock://CID:PORT or hybrid:///path:PORT")


def connect_unix(path: str, timeout: float | None = None) -> socket.socket:
    """Return a unix stream socket connected to `path` ("@name" is abstract). Raises OSError."""
    with short_path(path) as name:
        return _connected(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), name, timeout)


def listen_unix(path: Path) -> socket.socket:
    """Return a unix stream socket that listens at `path`, which must not exist. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_path(str(path)) as name:
            sock.bind(name)
        sock.listen(16)
    except OSError:
        sock.close()
        raise
    return sock


def read_line(sock: socket.socket, limit: int) -> bytes:
    """Read up to the end of a line, of the stream, or until there are more than `limit` bytes.

    Raises OSError.
    """
    line = b""
    while not line.endswith(b"\n") and len(line) <= limit and (data := sock.recv(limit)):
        line += data
    return line


@contextmanager
def short_path(path: str) -> Iterator[str]:
    """Context manager: yield a name for `path` that fits into a socket address.

    A long path is replaced by one through a descriptor of its folder, so it is valid only inside
    the `with`.
    """
    if path.startswith("@") or len(os.fsencode(path)) <= _SUN_PATH:
        yield "\0" + path[1:] if path.startswith("@") else path
        return
    folder = os.open(Path(path).parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{Path(path).name}"
    finally:
        os.close(folder)


def _is_u32(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(_U32)) and int(text) <= _U32


def _connected(sock: socket.socket, target: object, timeout: float | None) -> socket.socket:
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        sock.settimeout(timeout)
        while True:
            try:
                sock.connect(target)  # type: ignore[arg-type]
                break
            except BlockingIOError:
                # A unix socket's backlog is full. connect(2) fails at once if the socket has a
                # timeout.
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError("timed out: too many are waiting to connect") from None
            time.sleep(PAUSE)
        sock.settimeout(None)
    except BaseException:
        sock.close()
        raise
    return sock


def _hybrid(path: str, port: int, timeout: float | None) -> socket.socket:
    deadline = None if timeout is None else time.monotonic() + timeout
    sock = connect_unix(path, timeout)
    try:
        sock.sendall(b"CONNECT %d\n" % port)
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        while not poll.poll(_left(deadline, KICK_SECONDS) * 1000):
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"no answer to CONNECT {port} on {path}")
            connect_unix(path, timeout).close()
        _read_greeting(sock, path, port, deadline)
    except BaseException:
        sock.close()
        raise
    return sock


def _left(deadline: float | None, most: float) -> float:
    """Return the seconds until `deadline`, between 0 and `most`."""
    return most if deadline is None else min(most, max(0.0, deadline - time.monotonic()))


def _read_greeting(sock: socket.socket, path: str, port: int, deadline: float | None) -> None:
    """Read the line `OK ...` byte by byte, because the bytes after it belong to the caller.

    Raises ConnectionRefusedError for any other answer.
    """
    line = b""
    while not line.endswith(b"\n"):
        sock.settimeout(None if deadline is None else max(_SHORTEST, deadline - time.monotonic()))
        byte = sock.recv(1)
        if not byte or len(line) > _MAX_GREETING:
            raise ConnectionRefusedError(f"nothing listens on vsock port {port} behind {path}")
        line += byte
    if not line.startswith(b"OK"):
        raise ConnectionRefusedError(f"{path} answered {line!r}")
    sock.settimeout(None)
