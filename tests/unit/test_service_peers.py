"""Who is served: on vsock the host alone."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from agent import loop
from agent.service.server import Answer, serve
from innkeeper.wire.connection import CLIENT, Connection, ResponseReceived
from innkeeper.wire.envelope import Request, Response

HOST, GUEST, LOCAL = 2, 3, 1


class Listener:
    """A listening vsock socket that has one connection for each of `peers`."""

    family, type = socket.AF_VSOCK, socket.SOCK_STREAM

    def __init__(self, peers: list[int]) -> None:
        self.clients: list[socket.socket] = []
        self._waiting: list[tuple[int, tuple[int, int]]] = []
        for cid in peers:
            ours, theirs = socket.socketpair()
            self.clients.append(theirs)
            self._waiting.append((ours.detach(), (cid, 1000)))
        self._ready, self._end = os.pipe()
        os.write(self._end, b"x")

    def fileno(self) -> int:
        return self._ready

    def _accept(self) -> tuple[int, tuple[int, int]]:
        if not self._waiting:
            os.read(self._ready, 1)
            raise BlockingIOError
        return self._waiting.pop(0)

    def close(self) -> None:
        """The listener's end; that of the clients is their own."""
        os.close(self._ready)
        os.close(self._end)


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener([LOCAL, GUEST, HOST])
    yield made
    for client in made.clients:
        client.close()


def test_only_the_host_is_served(listener: Listener) -> None:
    """The others are closed before anything of theirs is read."""
    asked: list[str] = []

    def answer(request: Request) -> Answer:
        asked.append(request.method)
        return Answer(Response())

    async def main() -> None:
        for client in listener.clients:
            connection = Connection(CLIENT)
            connection.send_request(Request("grpc.Health", "Check", b""))
            client.sendall(connection.data_to_send())
        loop.spawn(serve(listener, answer), name="listener")  # type: ignore[arg-type]
        await loop.readable(listener.clients[-1].fileno())

    loop.run(main())
    assert asked == ["Check"]
    ends: list[Any] = []
    for client in listener.clients:
        client.setblocking(False)
        try:
            ends.append(client.recv(1000))
        except ConnectionResetError:
            ends.append(b"")
    assert ends[:2] == [b"", b""]
    connection = Connection(CLIENT)
    connection.send_request(Request("grpc.Health", "Check", b""))
    connection.data_to_send()
    assert [type(event) for event in connection.receive_data(ends[2])] == [ResponseReceived]
