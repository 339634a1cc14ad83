"""A local unix socket for a port of a guest's vsock, for clients that can only dial the former.

Each connection has two threads (see `socket_relay`).
"""

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from innkeeper import progress
from innkeeper.dial import connect_unix, dial, listen_unix
from innkeeper.errors import InnkeeperError
from innkeeper.vm.socket_relay import copy, shut_down

BACKLOG = 128
"""Clients that may connect at once. A unix socket with a timeout refuses more."""
DIAL_SECONDS = 15.0
"""Timeout of a connection to the guest, in seconds."""
HALF_CLOSE_SECONDS = 5.0
"""Seconds that the guest has to finish after the client has closed its sending side.

Not every vsock passes a half-close on to the guest.
"""
LOOK_SECONDS = 1.0
"""Seconds between two checks whether the guest is still running."""


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Context manager: listen at `path`, where only this user may connect.

    The socket file is removed at the end of the `with`. Raises InnkeeperError if `path` is in use.
    """
    _clear(path)
    mask = os.umask(0o177)
    try:
        listener = listen_unix(path)
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
    """Remove a socket without a listener, which a killed proxy leaves behind."""
    if not path.is_socket():
        return
    try:
        connect_unix(str(path), 1).close()
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    else:
        raise InnkeeperError(f"{path} is in use by another process")


def serve(listener: socket.socket, address: str, alive: Callable[[], bool]) -> None:
    """Connect each client of `listener` to `address` (see innkeeper.dial).

    Returns once `alive` returns False.
    """
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
    """Copy both ways until the guest has closed its side or either side is gone.

    Both sockets are then shut down. The caller closes them.
    """
    over = threading.Event()

    def upward() -> None:
        copy(client, guest)
        shut_down(guest, socket.SHUT_WR)
        over.wait(HALF_CLOSE_SECONDS)
        shut_down(guest, socket.SHUT_RDWR)

    thread = threading.Thread(target=upward, name="proxy up", daemon=True)
    thread.start()
    copy(guest, client)
    over.set()
    for sock in (client, guest):
        shut_down(sock, socket.SHUT_RDWR)
    thread.join()
