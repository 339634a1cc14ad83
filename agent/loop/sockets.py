"""Sockets that never block: the next client, all of what is to be sent, what has come."""

import socket

from agent.loop.waits import readable, writable

CHUNK = 1 << 16


async def accept(listener: socket.socket) -> socket.socket:
    """The next client, not blocking. One that has left again before it was accepted is passed over."""
    while True:
        await readable(listener.fileno())
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            continue
        client.setblocking(False)
        return client


async def send_all(client: socket.socket, data: bytes) -> None:
    """Send all of `data`. Raises OSError when the client is gone."""
    view = memoryview(data)
    while view:
        try:
            view = view[client.send(view) :]
        except BlockingIOError:
            await writable(client.fileno())


async def receive(client: socket.socket) -> bytes:
    """What has come; b"" at the end. Raises OSError when the client is gone."""
    while True:
        try:
            return client.recv(CHUNK)
        except BlockingIOError:
            await readable(client.fileno())
