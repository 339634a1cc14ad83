"""Who is served, on each of the agent's ports: on vsock the host alone."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from agent import log, loop
from agent.loop.sockets import accept, receive
from agent.pod.shell import Shells
from agent.pod.streams import Passthrough
from agent.service.gateway import Gateway
from agent.service.server import Answer, Peer, serve
from agent.vsock_services.console import DebugConsole
from agent.vsock_services.log_port import LogPort
from innkeeper.wire.connection import CLIENT, Connection
from innkeeper.wire.envelope import Request, Response
from tests.unit.service.vsock_listener import GUEST, HOST, LOCAL, VsockListener

ELSEWHERE = (LOCAL, GUEST, 0, 0xFFFFFFFF)


@pytest.mark.parametrize("cid", [HOST, *ELSEWHERE])
def test_accept_gives_the_host_only(cid: int, capfd: pytest.CaptureFixture[str]) -> None:
    """A peer that is not the host is hung up on before anything of it is read; the next one is taken."""

    async def main() -> bytes:
        with VsockListener(cid, HOST) as listener, listener.clients[0] as first, listener.clients[1] as second:
            first.sendall(b"1")
            second.sendall(b"2")
            with await accept(listener) as taken:
                return taken.recv(10)

    assert loop.run(main()) == (b"1" if cid == HOST else b"2")
    assert (f"connection from vsock {cid}, which is not the host" in capfd.readouterr().err) == (cid != HOST)


def _request() -> bytes:
    connection = Connection(CLIENT)
    connection.send_request(Request("grpc.Health", "Check", b""))
    return connection.data_to_send()


async def _calls(listener: VsockListener, patch: pytest.MonkeyPatch) -> None:
    await serve(listener, lambda request: Answer(Response()))


async def _log(listener: VsockListener, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(log, "_sink", None)
    port = LogPort(listener)
    log.error("line")
    await port.serve()


async def _console(listener: VsockListener, patch: pytest.MonkeyPatch) -> None:
    async def talk(self: DebugConsole, client: loop.Socket) -> None:
        client.send(b"shell")

    patch.setattr(DebugConsole, "_talk", talk)
    await DebugConsole(Shells()).serve(listener)


async def _passthrough(listener: VsockListener, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("agent.pod.streams.peer_port", lambda client: client.send(b"x"))
    await Passthrough().serve(listener)


async def _gateway(listener: VsockListener, patch: pytest.MonkeyPatch) -> None:
    async def attend(self: Gateway, client: loop.Socket) -> None:
        client.send(b"grpc")
        client.close()

    patch.setattr(Gateway, "_attend", attend)
    await Gateway("/nowhere", lambda request: Answer(Response())).serve(listener)


PORTS: dict[str, Callable[[VsockListener, pytest.MonkeyPatch], Coroutine[Any, Any, None]]] = {
    "calls": _calls,
    "log": _log,
    "debug console": _console,
    "passthrough": _passthrough,
    "gRPC": _gateway,
}


@pytest.mark.parametrize("port", PORTS)
def test_every_port_serves_the_host_only(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two callers that are not the host, then the host: it alone hears anything."""
    heard: list[bytes] = []

    async def main() -> None:
        listener = VsockListener(LOCAL, GUEST, HOST)
        for client in listener.clients:
            client.sendall(_request())
        service = loop.spawn(PORTS[port](listener, monkeypatch), name=port)
        with loop.timeout(20):
            await loop.readable(listener.clients[-1].fileno())
        for client in listener.clients:
            try:
                heard.append(client.recv(1000))
            except ConnectionResetError:
                heard.append(b"")  # closed before it was read from
        await service.stop()
        listener.close()
        for client in listener.clients:
            client.close()

    loop.run(main())
    assert heard[:2] == [b"", b""]
    assert heard[2]


def test_a_socket_that_takes_nothing_after_all_is_no_lost_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """epoll says that it is writable, send(2) says EAGAIN: the answer is sent later, whole."""
    refused = 0
    send = loop.Socket.send

    def sometimes(self: loop.Socket, data: bytes, *flags: int) -> int:
        nonlocal refused
        if len(data) > 1000 and refused < 3:
            refused += 1
            raise BlockingIOError
        return send(self, data, *flags)

    monkeypatch.setattr(loop.Socket, "send", sometimes)

    async def main() -> None:
        ours, near = loop.socket_pair()
        serving = loop.spawn(Peer(near, lambda request: Answer(Response(payload=bytes(1 << 20)))).run(), name="peer")
        client = Connection(CLIENT)
        client.send_request(Request("grpc.Health", "Check", b""))
        ours.send(client.data_to_send())
        events: list[Any] = []
        with loop.timeout(20):
            while not events:
                events = list(client.receive_data(await receive(ours)))
        assert len(events[0].response.payload) == 1 << 20
        ours.close()
        await serving.wait()

    loop.run(main())
    assert refused == 3
