"""Addresses of agents, and how each kind is dialled.

unix:///path            a unix stream socket; unix://@name is abstract
vsock://CID:PORT        AF_VSOCK of the host's kernel
hybrid:///path:PORT     a unix socket whose owner relays to the guest's vsock PORT after a line "CONNECT PORT"
"""

import os
import select
import socket
import time
from pathlib import Path

from innkeeper.errors import InnkeeperError

POKE_SECONDS = 0.3
"""How long an answer to CONNECT may take before the relay is woken: vhost-device-vsock may sleep on a notification it dropped."""
PAUSE = 0.01
_SUN_PATH = 100
_SHORTEST = 0.001
"""A socket's time limit of 0 would mean not to block at all."""
_MAX_GREETING = 64
_U32 = (1 << 32) - 1


def dial(address: str, timeout: float | None = None) -> socket.socket:
    """A connected, blocking socket. Raises OSError (TimeoutError after `timeout` seconds), InnkeeperError for a malformed address."""
    scheme, _, rest = address.partition("://")
    head, _, port = rest.rpartition(":")
    if scheme == "unix" and rest:
        return _unix(rest, timeout)
    if scheme == "vsock" and _is_u32(head) and _is_u32(port):
        return _connected(socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM), (int(head), int(port)), timeout)
    if scheme == "hybrid" and head and _is_u32(port):
        return _hybrid(head, int(port), timeout)
    raise InnkeeperError(f"malformed agent address {address!r}", hint="use unix:///path, vsock://CID:PORT or hybrid:///path:PORT")


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
                # a unix socket's backlog is full, and a socket with a time limit does not wait for it
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError("timed out: too many are waiting to connect") from None
            time.sleep(PAUSE)
        sock.settimeout(None)
    except BaseException:
        sock.close()
        raise
    return sock


def _unix(path: str, timeout: float | None) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if path.startswith("@"):
        return _connected(sock, "\0" + path[1:], timeout)
    if len(os.fsencode(path)) <= _SUN_PATH:
        return _connected(sock, path, timeout)
    # longer than an address can hold: name the folder by descriptor
    folder = os.open(Path(path).parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _connected(sock, f"/proc/self/fd/{folder}/{Path(path).name}", timeout)
    finally:
        os.close(folder)


def _hybrid(path: str, port: int, timeout: float | None) -> socket.socket:
    deadline = None if timeout is None else time.monotonic() + timeout
    sock = _unix(path, timeout)
    try:
        sock.sendall(b"CONNECT %d\n" % port)
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        while not poll.poll(_left(deadline, POKE_SECONDS) * 1000):
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"no answer to CONNECT {port} on {path}")
            _unix(path, timeout).close()
        _read_greeting(sock, path, port, deadline)
    except BaseException:
        sock.close()
        raise
    return sock


def _left(deadline: float | None, most: float) -> float:
    return most if deadline is None else min(most, max(0.0, deadline - time.monotonic()))


def _read_greeting(sock: socket.socket, path: str, port: int, deadline: float | None) -> None:
    """Takes the line `OK ...` byte by byte: what follows it belongs to the caller."""
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
