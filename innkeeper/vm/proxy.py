"""A local unix socket in place of a port of a guest's vsock, for clients that can only dial the former.

Two threads for each connection, with blocking calls: what is in flight is bounded by one piece and the sockets' own buffers.
"""

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from innkeeper import progress
from innkeeper.client.address import dial
from innkeeper.errors import InnkeeperError
from innkeeper.vm import sockets

BACKLOG = 128
"""Clients that may connect at once: with a time limit, a unix socket refuses what is over."""
PIECE = 256 << 10
"""bytes"""
DIAL_SECONDS = 15.0
LINGER = 5.0
"""Seconds that the guest has to finish once the client has said that it sends no more: not every vsock passes a half-close on."""
LOOK_SECONDS = 1.0
"""How often it is asked whether the guest is still there."""


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A listening socket at `path` that only this user may connect to; gone with the `with`. Raises InnkeeperError if it is taken."""
    _clear(path)
    mask = os.umask(0o177)
    try:
        listener = sockets.listen(path)
        listener.listen(BACKLOG)
    except OSError as error:
        raise InnkeeperError(f"cannot listen on {path}: {error.strerror}") from error
    finally:
        os.umask(mask)
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on: what a proxy that was killed leaves."""
    if not path.is_socket():
        return
    try:
        sockets.connect(path, timeout=1).close()
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    else:
        raise InnkeeperError(f"{path} is in use by another process")


def serve(listener: socket.socket, address: str, alive: Callable[[], bool]) -> None:
    """Connect each client of `listener` to `address` (see innkeeper.client.address), until `alive` says that nobody is there any more."""
    while True:
        ready, _, _ = select.select([listener], [], [], LOOK_SECONDS)
        if ready:
            client, _ = listener.accept()
            threading.Thread(target=_attend, args=(client, address), name="proxy", daemon=True).start()
        elif not alive():
            return


def _attend(client: socket.socket, address: str) -> None:
    with client:
        try:
            guest = dial(address, DIAL_SECONDS)
        except OSError as error:
            progress.note(f"connection closed: {error}")
            return
        with guest:
            relay(client, guest)


def relay(client: socket.socket, guest: socket.socket) -> None:
    """Copy both ways until the guest has ended or either is gone. Both are shut down then; closing them is the caller's."""
    over = threading.Event()

    def upward() -> None:
        _copy(client, guest)
        _shut_down(guest, socket.SHUT_WR)
        over.wait(LINGER)
        _shut_down(guest, socket.SHUT_RDWR)

    thread = threading.Thread(target=upward, name="proxy up", daemon=True)
    thread.start()
    _copy(guest, client)
    over.set()
    for sock in (client, guest):
        _shut_down(sock, socket.SHUT_RDWR)
    thread.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """One direction, up to its end. A side that is gone is an end."""
    try:
        while data := source.recv(PIECE):
            target.sendall(data)
    except OSError:
        pass


def _shut_down(sock: socket.socket, how: int) -> None:
    try:
        sock.shutdown(how)
    except OSError:
        pass  # not connected any more
