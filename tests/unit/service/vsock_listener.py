"""A listening vsock socket of tests: the seam is accept(2), which gives each client the CID that the test wants."""

import os
import socket
from typing import Any

from agent.loop import Socket

HOST, GUEST, LOCAL = 2, 3, 1


class VsockListener(Socket):
    """Has one connection for each of `cids` in turn; `clients` are the far ends."""

    family: Any = socket.AF_VSOCK

    def __init__(self, *cids: int) -> None:
        self._end, ours = socket.socketpair()
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM, 0, ours.detach())
        self._end.send(b"x")  # readable until everybody is accepted
        self.clients: list[socket.socket] = []
        self._waiting: list[tuple[int, tuple[int, int]]] = []
        for cid in cids:
            near, far = socket.socketpair()
            far.settimeout(20)
            self.clients.append(far)
            self._waiting.append((near.detach(), (cid, 1000)))

    def _accept(self) -> tuple[int, tuple[int, int]]:
        if not self._waiting:
            self.recv(1)
            raise BlockingIOError
        return self._waiting.pop(0)

    def close(self) -> None:
        """The clients are closed by the test's end, so that what was sent to them can still be read."""
        for near, _ in self._waiting:
            os.close(near)
        self._waiting.clear()
        self._end.close()
        super().close()
