"""Copy between two connected sockets, by threads with blocking calls.

So the data in flight is bounded by one buffer per direction and the sockets' own buffers.
"""

import socket
import threading

BUFFER_SIZE = 256 << 10
"""Bytes per read."""


def exchange(client: socket.socket, server: socket.socket) -> None:
    """Copy both ways until both have ended.

    Each end of file is passed on separately: a side that has sent everything may still be reading.
    """
    upward = threading.Thread(target=_pass_on, args=(client, server), name="relay up", daemon=True)
    upward.start()
    _pass_on(server, client)
    upward.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    if not copy(source, target):
        # One side is gone, so the other direction has to end too.
        shut_down(source, socket.SHUT_RDWR)
        shut_down(target, socket.SHUT_RDWR)
    shut_down(target, socket.SHUT_WR)


def copy(source: socket.socket, target: socket.socket) -> bool:
    """Copy one direction until its end. Return False if that was an error and no end of file."""
    try:
        while data := source.recv(BUFFER_SIZE):
            target.sendall(data)
    except OSError:
        return False
    return True


def shut_down(sock: socket.socket, how: int) -> None:
    """Call shutdown(2). It is no error if the socket is no longer connected."""
    try:
        sock.shutdown(how)
    except OSError:
        pass
