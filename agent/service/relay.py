"""Copies bytes between two stream sockets: splice(2) through a pipe in each direction.

The bytes stay in the kernel. A pipe holds 64 KiB and is emptied before more is read, so no more
than that is in flight in each direction of a connection. Each piece is one step of a task, so a
connection that is always busy does not keep the others waiting.
"""

import os
from _socket import SHUT_RDWR, SHUT_WR
from typing import TYPE_CHECKING

from agent import log
from agent.loop import readable, sleep, spawn, writable

if TYPE_CHECKING:
    from agent.loop import Socket

SPLICE_MAX = 64 << 10
"""Most bytes of one splice(2), the capacity of a pipe."""
HALF_CLOSE_SECONDS = 5.0
"""Seconds that the server has to finish after the client has ended its side."""
_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE


async def relay(client: "Socket", server: "Socket") -> None:
    """Copy in both directions until `server` ends or either side is gone.

    The caller still owns the sockets and has to close them.
    """
    upward = spawn(_upward(client, server), name="relay")
    try:
        await _pump(server, client)
    finally:
        await upward.stop()


async def _upward(client: "Socket", server: "Socket") -> None:
    """Copy from the client, then shut down the server's side.

    The server sees the end of the stream, and has HALF_CLOSE_SECONDS to end by itself.
    """
    await _pump(client, server)
    _shut_down(server, SHUT_WR)
    await sleep(HALF_CLOSE_SECONDS)
    _shut_down(server, SHUT_RDWR)


def _shut_down(sock: "Socket", how: int) -> None:
    try:
        sock.shutdown(how)
    except OSError:
        pass  # not connected any more


async def _pump(source: "Socket", target: "Socket") -> None:
    """Copy in one direction until its end. An error of either side counts as the end."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        while True:
            await readable(source)
            try:
                piece = os.splice(source.fileno(), write_end, SPLICE_MAX, flags=_FLAGS)
            except BlockingIOError:
                continue
            if not piece:
                return
            await _drain(read_end, target, piece)
    except OSError as error:
        log.debug(f"connection lost: {error}", "grpc")
    finally:
        os.close(read_end)
        os.close(write_end)


async def _drain(pipe: int, target: "Socket", size: int) -> None:
    """Write the `size` bytes that are in the pipe to `target`. Raises OSError."""
    while size:
        try:
            size -= os.splice(pipe, target.fileno(), size, flags=_FLAGS)
        except BlockingIOError:
            await writable(target)
