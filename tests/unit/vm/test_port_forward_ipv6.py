"""Published ports in IPv6: which sockets a forward takes, and what the relays carry."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.vm import network, port_forward_ipv6
from innkeeper.vm.config import Forward
from innkeeper.vm.port_forward_ipv6 import Relay
from tests.descriptors import open_descriptors

pytestmark = pytest.mark.skipif(not network._has_ipv6(), reason="this host has no IPv6")


def bound(kind: int, address: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    sock.bind((address, 0))
    return sock


@contextlib.contextmanager
def relayed(kind: int) -> Iterator[tuple[socket.socket, int]]:
    """A server's socket in IPv4, and the port of ::1 that leads to it."""
    with bound(kind) as server:
        if kind == socket.SOCK_STREAM:
            server.listen()
        listener = bound(kind, "::1")
        if kind == socket.SOCK_STREAM:
            listener.listen()
        relay = Relay(listener, server.getsockname()[1])
        try:
            yield server, listener.getsockname()[1]
        finally:
            relay.close()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_without_an_address_is_taken_in_both_families(protocol: str) -> None:
    resolved = network.resolve_ports([Forward(protocol, "", 0, 80)])
    try:
        (forward,), ((listener, target),) = resolved.forwards, resolved.listeners
        assert resolved.rules == (forward,)
        assert (forward.host_address, forward.host_port, target) == ("", listener.getsockname()[1], forward.host_port)
        assert listener.getsockname()[0] == "::"
        assert str(forward) == f"0.0.0.0:{forward.host_port}->80/{protocol}"
        with pytest.raises(InnkeeperError, match=f"^-p: port {forward.host_port}/{protocol} of the host is in use"):
            network.resolve_ports([Forward(protocol, "::1", forward.host_port, 80)])
        with pytest.raises(InnkeeperError, match="in use"):
            network.resolve_ports([forward])
    finally:
        for listener, _ in resolved.listeners:
            listener.close()


def test_an_address_is_taken_in_its_family_alone() -> None:
    (v6,) = network.resolve_ports([Forward("tcp", "::1", 0, 80)]).listeners
    with v6[0]:
        port = v6[0].getsockname()[1]
        four = network.resolve_ports([Forward("tcp", "127.0.0.1", port, 80)])
        assert (four.forwards, four.listeners) == (four.rules, ())
        assert str(Forward("tcp", "::1", port, 80)) == f"[::1]:{port}->80/tcp"
    resolved = network.resolve_ports([Forward("tcp", "::1", port, 80)])
    resolved.listeners[0][0].close()
    assert resolved.forwards == (Forward("tcp", "::1", port, 80),)
    assert resolved.rules[0].host_address == "127.0.0.1" and resolved.rules[0].host_port == resolved.listeners[0][1] != port
    with pytest.raises(InnkeeperError, match=r"^-p: 2001:db8::1 is not an address of this host"):
        network.resolve_ports([Forward("tcp", "2001:db8::1", 0, 80)])


def test_nothing_stays_open_of_what_cannot_be_had() -> None:
    before = open_descriptors()
    with bound(socket.SOCK_STREAM) as taken:
        taken.listen()
        with pytest.raises(InnkeeperError, match="in use"):
            last = Forward("tcp", "127.0.0.1", taken.getsockname()[1], 80)
            network.resolve_ports([Forward("tcp", "", 0, 80), Forward("tcp", "::1", 0, 80), last])
    assert open_descriptors() == before


def test_a_host_without_ipv6_publishes_in_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_has_ipv6", lambda: False)
    resolved = network.resolve_ports([Forward("tcp", "", 0, 80)])
    assert (resolved.forwards, resolved.listeners) == (resolved.rules, ())


def test_connections_carry_each_end_by_itself() -> None:
    with relayed(socket.SOCK_STREAM) as (server, port):
        data = os.urandom(3_000_000)
        with socket.create_connection(("::1", port), timeout=30) as client:
            inner, _ = server.accept()
            with inner:
                client.sendall(b"question")
                client.shutdown(socket.SHUT_WR)
                assert inner.makefile("rb").read() == b"question", "the client's end arrives"

                def answer() -> None:
                    inner.sendall(data)
                    inner.shutdown(socket.SHUT_WR)

                sender = threading.Thread(target=answer)
                sender.start()
                assert client.makefile("rb").read() == data, "and the answer after it"
                sender.join()


def test_a_server_that_is_gone_ends_the_connection() -> None:
    with relayed(socket.SOCK_STREAM) as (server, port):
        server.close()
        with socket.create_connection(("::1", port), timeout=30) as client:
            assert client.recv(1) == b""


def test_closing_ends_connections_also_where_none_more_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_forward_ipv6, "MAX_CONNECTIONS", 1)
    before = open_descriptors()
    with contextlib.ExitStack() as stack:
        with relayed(socket.SOCK_STREAM) as (server, port):
            clients = [stack.enter_context(socket.create_connection(("::1", port), timeout=30)) for _ in range(3)]
            inner, _ = server.accept()
            stack.enter_context(inner)
        assert clients[0].recv(1) == b""
    for thread in threading.enumerate():
        if thread.name.startswith("relay"):
            thread.join(30)
    assert open_descriptors() == before


def test_each_client_gets_its_own_datagrams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_forward_ipv6, "MAX_CLIENTS", 2)
    with relayed(socket.SOCK_DGRAM) as (server, port), contextlib.ExitStack() as stack:
        server.settimeout(30)
        clients = [stack.enter_context(bound(socket.SOCK_DGRAM, "::1")) for _ in range(4)]
        for size in (1, 1400, 60_000):
            for number, client in enumerate(clients):
                client.settimeout(30)
                client.connect(("::1", port))
                client.send(bytes([65 + number]) * size)
                data, address = server.recvfrom(1 << 16)
                assert data == bytes([65 + number]) * size
                server.sendto(data.lower(), address)
                assert client.recv(1 << 16) == data.lower()
