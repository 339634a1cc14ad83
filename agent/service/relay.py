"""Moves bytes between two stream sockets without looking at them: splice(2) through a pipe in each direction.

A pipe holds 64 KiB, and is emptied before more is read: that is all PID 1 ever has in flight of a connection. Each piece is one turn in
the loop, so a connection that is always busy does not keep the others waiting.
"""

import os
from _socket import SHUT_RDWR, SHUT_WR
from typing import TYPE_CHECKING

from agent import log
from agent.loop import readable, sleep, spawn, writable

if TYPE_CHECKING:
    from agent.loop import Socket

PIECE = 64 << 10
"""bytes"""
LINGER = 5.0
"""Seconds that the server has to finish once its client has said that it sends no more."""
_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE


async def relay(client: "Socket", server: "Socket") -> None:
    """Copy until `server` has ended or either is gone. The sockets stay the caller's."""
    upward = spawn(_upward(client, server), name="relay")
    try:
        await _pump(server, client)
    finally:
        await upward.stop()


async def _upward(client: "Socket", server: "Socket") -> None:
    """From the client; then tell the server that no more comes, and end it if it does not end by itself."""
    await _pump(client, server)
    _shut_down(server, SHUT_WR)
    await sleep(LINGER)
    _shut_down(server, SHUT_RDWR)


def _shut_down(sock: "Socket", how: int) -> None:
    try:
        sock.shutdown(how)
    except OSError:
        pass  # not connected any more


async def _pump(source: "Socket", target: "Socket") -> None:
    """One direction, up to its end. A side that is gone is an end."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        while True:
            await readable(source)
            try:
                piece = os.splice(source.fileno(), write_end, PIECE, flags=_FLAGS)
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
    """Pass on the `size` bytes that are in the pipe."""
    while size:
        try:
            size -= os.splice(pipe, target.fileno(), size, flags=_FLAGS)
        except BlockingIOError:
            await writable(target)
