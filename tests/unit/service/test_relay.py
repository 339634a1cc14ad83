"""Bytes between two sockets: all of them, in order, no more in flight than a pipe holds, and nothing left at the end."""

import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from agent import loop
from agent.service import relay
from tests.descriptors import open_descriptors

Ends = tuple[loop.Socket, loop.Socket]
Body = Callable[[loop.Socket, loop.Socket, "loop.Task[None]"], Coroutine[Any, Any, None]]


def relayed(body: Body) -> None:
    """Run `body` with the far ends of a relay's two connections: the client's, the server's, and the relay's task."""
    before = open_descriptors()

    async def main() -> None:
        client, client_near = loop.socket_pair()
        server, server_near = loop.socket_pair()
        sockets = (client, client_near, server, server_near)
        task = loop.spawn(relay.relay(client_near, server_near), name="relay")
        try:
            with loop.timeout(30):
                await body(client, server, task)
        finally:
            await task.stop()
            for sock in sockets:
                sock.close()

    loop.run(main())
    assert open_descriptors() == before


async def send(sock: loop.Socket, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view) :]
        except BlockingIOError:
            await loop.writable(sock.fileno())


async def receive(sock: loop.Socket, size: int) -> bytes:
    """Up to `size` bytes, fewer at the end of the stream."""
    data = b""
    while len(data) < size:
        try:
            piece = sock.recv(size - len(data))
        except BlockingIOError:
            await loop.readable(sock.fileno())
            continue
        if not piece:
            break
        data += piece
    return data


def test_both_ways_at_once_and_whole() -> None:
    up, down = os.urandom(5_000_001), os.urandom(3_000_007)
    received: dict[str, bytes] = {}

    async def take(name: str, sock: loop.Socket, size: int) -> None:
        received[name] = await receive(sock, size)

    async def body(client: loop.Socket, server: loop.Socket, task: "loop.Task[None]") -> None:
        await loop.gather(send(client, up), send(server, down), take("up", server, len(up)), take("down", client, len(down)))

    relayed(body)
    assert (received["up"] == up, received["down"] == down) == (True, True)


def test_what_the_server_said_last_arrives() -> None:
    async def body(client: loop.Socket, server: loop.Socket, task: "loop.Task[None]") -> None:
        await send(server, b"last words" * 10_000)
        server.shutdown(socket.SHUT_RDWR)
        await task.wait()
        assert await receive(client, 100_000) == b"last words" * 10_000

    relayed(body)


def test_the_server_may_answer_after_its_client_s_last_word() -> None:
    async def body(client: loop.Socket, server: loop.Socket, task: "loop.Task[None]") -> None:
        await send(client, b"question")
        client.shutdown(socket.SHUT_WR)
        assert await receive(server, 100) == b"question"
        await send(server, b"answer")
        server.close()
        await task.wait()
        assert await receive(client, 6) == b"answer"

    relayed(body)


def test_a_server_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "HALF_CLOSE_SECONDS", 0.05)

    async def body(client: loop.Socket, server: loop.Socket, task: "loop.Task[None]") -> None:
        client.close()
        await task.wait()
        assert await receive(server, 1) == b""

    relayed(body)


def test_no_more_is_taken_than_fits_into_the_pipe() -> None:
    async def body(client: loop.Socket, server: loop.Socket, task: "loop.Task[None]") -> None:
        for sock in (client, server):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        taken, idle = 0, 0
        while idle < 20:
            try:
                taken += client.send(bytes(1 << 16))
                idle = 0
            except BlockingIOError:
                idle += 1
                await loop.sleep(0.005)
        assert not task.done
        assert taken < 3 << 20, "a pipe and the buffers of four sockets"

    relayed(body)


def test_cancelled_it_leaves_nothing() -> None:
    async def body(client: loop.Socket, server: loop.Socket, task: "loop.Task[None]") -> None:
        await send(client, b"x")
        await receive(server, 1)

    relayed(body)
