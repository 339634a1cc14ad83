"""Who is served, on each of the agent's ports: on vsock the host alone."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from agent import config, log, loop
from agent.config import OPTIONS, Config
from agent.loop.sockets import accept, receive
from agent.loop.task import running_loop
from agent.pod.shell import Shells
from agent.pod.streams import Passthrough
from agent.service.gateway import Gateway
from agent.service.server import Answer, Peer, serve
from agent.vsock_services import vsock_ports
from agent.vsock_services.console import DebugConsole
from innkeeper.wire.connection import CLIENT, Connection
from innkeeper.wire.envelope import Request, Response
from tests.unit.service.vsock_listener import GUEST, HOST, LOCAL, VsockListener

if TYPE_CHECKING:
    from agent.sandbox import Sandbox

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
    """What each service answers: a call, and the end of a line."""
    connection = Connection(CLIENT)
    connection.send_request(Request("grpc.Health", "Check", b""))
    return connection.data_to_send() + b"\n"


SETTINGS = tuple(option.name for option in OPTIONS if option.parse is config._port)
"""The settings that are the number of a port."""


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The part of a sandbox that services use. What each does with a client is that it sends something."""

    async def talk(self: DebugConsole, client: loop.Socket) -> None:
        client.send(b"shell")

    async def attend(self: Gateway, client: loop.Socket) -> None:
        client.send(b"grpc")
        client.close()

    monkeypatch.setattr(DebugConsole, "_talk", talk)
    monkeypatch.setattr("agent.pod.streams.peer_port", lambda client: client.send(b"x"))
    monkeypatch.setattr(Gateway, "_attend", attend)
    monkeypatch.setattr(log, "_sink", None)
    return SimpleNamespace(containers=SimpleNamespace(shells=Shells()), pass_streams=Passthrough)


def opened(services: SimpleNamespace, patch: pytest.MonkeyPatch, listen: Callable[[int], VsockListener], *names: str) -> None:
    """Open the ports of these settings, each of which gets its place in SETTINGS as its number, from 1."""
    patch.setattr(vsock_ports, "_listen", lambda address, port: listen(port))
    settings = Config()
    settings.debug_console = True
    for name in names:
        setattr(settings, name, SETTINGS.index(name) + 1)
    vsock_ports.open_ports(settings, cast("Sandbox", services))


def test_each_setting_of_a_port_opens_one(services: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """And there are no others: so the test below knows them all."""
    listeners: dict[int, VsockListener] = {}

    async def main() -> None:
        opened(services, monkeypatch, lambda port: listeners.setdefault(port, VsockListener()), *SETTINGS)

    loop.run(main())
    for listener in listeners.values():
        listener.close()
    assert sorted(listeners) == list(range(1, len(SETTINGS) + 1))


@pytest.mark.parametrize("port", ["calls", "gRPC", *SETTINGS])
def test_every_port_serves_the_host_only(port: str, services: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two callers that are not the host, then the host: it alone hears anything."""
    heard: list[bytes] = []

    async def main() -> None:
        listener = VsockListener(LOCAL, GUEST, HOST)
        for client in listener.clients:
            client.sendall(_request())
        before = set(running_loop().tasks)
        if port == "calls":
            loop.spawn(serve(listener, lambda request: Answer(Response())), name=port)
        elif port == "gRPC":
            loop.spawn(Gateway("/nowhere", lambda request: Answer(Response())).serve(listener), name=port)
        else:
            opened(services, monkeypatch, lambda number: listener, port)
            log.error("line")  # for the log port, which is the sink of all lines from here on
        with loop.timeout(20):
            await loop.readable(listener.clients[-1].fileno())
        for client in listener.clients:
            try:
                heard.append(client.recv(1000))
            except ConnectionResetError:
                heard.append(b"")  # closed before it was read from
        for task in running_loop().tasks - before:
            await task.stop()
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
