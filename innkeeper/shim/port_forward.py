"""`kubectl port-forward`: connections to the pod's localhost go on to the guest's localhost.

`localhost_listener` says how they arrive here. Each has two threads with blocking calls, and each
direction its own end: a client may send all and then read for long.
"""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Sequence

from innkeeper.dial import dial
from innkeeper.shim import log
from innkeeper.vm.socket_relay import exchange

PORT = 1028
"""The guest's vsock port for them."""
PARAMETER = f"innkeeper.port_forward_vport={PORT}"
DIAL_SECONDS = 15.0
LINE_MAX = 256
RESET = struct.pack("ii", 1, 0)
"""The SO_LINGER with which close(2) resets a connection.

Its client sees a failure, not an empty answer.
"""


class PortForward:
    """The listeners of a pod, from `start` until `close`. `link` keeps the connections coming."""

    def __init__(self, listeners: Sequence[socket.socket], link: int) -> None:
        self._listeners = listeners
        self._link = link
        self._closed = False

    def start(self, address: str) -> None:
        """Serve, in threads. `address` is that of PORT of the guest, for `dial`."""
        for listener in self._listeners:
            threading.Thread(target=self._serve, args=(listener, address), name="port forward", daemon=True).start()

    def _serve(self, listener: socket.socket, address: str) -> None:
        while not self._closed:
            try:
                client, _ = listener.accept()
            except OSError as error:
                if not self._closed:
                    log.error(f"forwarded ports: {error}")
                return
            threading.Thread(target=_attend, args=(client, address), name="forwarded", daemon=True).start()

    def close(self) -> None:
        """Take no more connections. Those there are end with the VM. May be called twice."""
        if self._closed:
            return
        self._closed = True
        os.close(self._link)
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes accept(2)
            listener.close()


def _attend(client: socket.socket, address: str) -> None:
    port = client.getsockname()[1]
    with client:
        try:
            guest = dial(address, DIAL_SECONDS)
        except OSError as error:
            _refuse(client, port, str(error))
            return
        with guest:
            guest.settimeout(DIAL_SECONDS)
            try:
                guest.sendall(b"CONNECT %d\n" % port)
                answer = _line(guest)
            except OSError as error:
                answer = str(error)
            if answer != "OK":
                _refuse(client, port, answer)
                return
            guest.settimeout(None)
            exchange(client, guest)


def _refuse(client: socket.socket, port: int, reason: str) -> None:
    log.info(f"port {port} of the pod: {reason}")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def _line(sock: socket.socket) -> str:
    """Return one line, and read nothing beyond it: the server may speak first. Raises OSError."""
    line = b""
    while len(line) < LINE_MAX and (byte := sock.recv(1)) not in (b"", b"\n"):
        line += byte
    return line.decode(errors="replace")
