"""The relay of the host and the serial port of the agent, over a pair of sockets in place of the device."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from agent import loop
from agent.loop import Fd, Socket, sockets
from agent.virtio_serial import SerialPort
from innkeeper.vm import serial_relay
from innkeeper.vm.serial_relay import SerialRelay
from innkeeper.wire.multiplexer import WINDOW
from tests.descriptors import open_descriptors
from tests.eventually import eventually

PORT = 1024
SILENT = 1025
MEGABYTES = 4 << 20


class Guest:
    """An agent's loop with an echo service on PORT, and one on SILENT that never reads."""

    def __init__(self, device: socket.socket) -> None:
        self.accepted = 0
        self.connections = 0
        self._device = device
        self._end_read, self._end_write = os.pipe()
        self.port: SerialPort | None = None
        self.near: socket.socket
        self.relay: SerialRelay

    def run(self) -> None:
        try:
            loop.run(self._main())
        finally:
            os.close(self._end_read)

    def end(self) -> None:
        os.close(self._end_write)

    async def _main(self) -> None:
        device = Fd(os.dup(self._device.fileno()))
        self.port = SerialPort(device)
        with device, sockets.listen(f"vsock://-1:{PORT}") as echo, sockets.listen(f"vsock://-1:{SILENT}") as silent:
            async with loop.TaskGroup() as group:
                group.spawn(self._accept(echo, self._echo), name="echo")
                group.spawn(self._accept(silent, self._ignore), name="silent")
                group.spawn(self.port.serve(), name="port")
                await loop.readable(self._end_read)
                group.cancel()

    async def _accept(self, listener: Socket, serve: "Callable[[Socket], object]") -> None:
        while True:
            client = await sockets.accept(listener)
            self.accepted += 1
            self.connections += 1
            loop.spawn(serve(client), name="client")  # type: ignore[arg-type]

    async def _echo(self, client: Socket) -> None:
        try:
            while data := await sockets.receive(client):
                await sockets.send_all(client, data)
        except OSError:
            pass
        finally:
            client.close()
            self.connections -= 1

    async def _ignore(self, client: Socket) -> None:
        with client:
            await loop.sleep(3600)


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guest]:
    monkeypatch.setattr(sockets, "VIRTIO_SERIAL", True)
    connectors: dict[int, Socket] = {}
    monkeypatch.setattr(sockets, "_connectors", connectors)
    before = open_descriptors()
    near, far = socket.socketpair()
    far.setblocking(False)
    waiting, ready = socket.socketpair()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "agent.sock"))
    listener.listen()
    relay = SerialRelay(listener, near, ready)
    guest = Guest(far)
    guest.near, guest.relay = near, relay
    agent = threading.Thread(target=guest.run)
    agent.start()
    assert waiting.recv(1) == b"", "the guest has announced itself"
    yield guest
    assert guest.relay.failure is None
    guest.end()
    agent.join(20)
    assert not agent.is_alive()
    guest.relay.close()
    for sock in (far, waiting, *connectors.values()):
        sock.close()
    assert open_descriptors() <= before, "threads of earlier tests may have ended in these seconds"


@pytest.fixture
def dial(guest: Guest, tmp_path: Path) -> "Callable[[int], socket.socket]":
    """Return a function that connects to a port, and returns once the service has the connection."""
    dialled = count(1)

    def connect(port: int) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(30)
        sock.connect(str(tmp_path / "agent.sock"))
        sock.sendall(b"CONNECT %d\n" % port)
        answer = b""
        while not answer.endswith(b"\n") and (data := sock.recv(1)):
            answer += data
        if answer != b"OK %d\n" % port:
            sock.close()
            raise ConnectionError(answer)
        number = next(dialled)
        eventually(lambda: guest.accepted >= number, "the service has not accepted")
        return sock

    return connect


def _echoed(sock: socket.socket, data: bytes) -> bytes:
    """Send `data`, end our direction, and return all that comes back."""
    with ThreadPoolExecutor(1) as pool, sock:

        def send() -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        sending = pool.submit(send)
        got = b""
        while piece := sock.recv(1 << 16):
            got += piece
        sending.result()
    return got


def test_many_connections_at_once(guest: Guest, dial: "Callable[[int], socket.socket]") -> None:
    """Each gets back what it sent, to the end of its own direction."""
    payloads = [os.urandom(MEGABYTES >> index) for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda data: _echoed(dial(PORT), data), payloads))
    assert results == payloads
    eventually(lambda: guest.connections == 0)
    assert guest.port is not None
    eventually(lambda: guest.port is not None and guest.port.connections == {})


def test_a_port_without_a_listener_is_refused(dial: "Callable[[int], socket.socket]") -> None:
    with pytest.raises(ConnectionError):
        dial(1)
    assert _echoed(dial(PORT), b"still here") == b"still here"


def test_a_service_that_does_not_read_holds_up_no_other(guest: Guest, dial: "Callable[[int], socket.socket]") -> None:
    flood = dial(SILENT)
    flood.settimeout(1)
    sent = 0
    with pytest.raises(TimeoutError):
        while True:
            sent += flood.send(bytes(1 << 16))
    assert sent < 4 * WINDOW + (1 << 20), "the window and the sockets' own buffers, no more"
    assert _echoed(dial(PORT), b"small") == b"small"
    flood.close()
    assert _echoed(dial(PORT), b"small again") == b"small again"


def test_a_client_that_goes_away_ends_its_connection(guest: Guest, dial: "Callable[[int], socket.socket]") -> None:
    with dial(PORT) as sock:
        sock.sendall(b"x" * 1000)
    eventually(lambda: guest.connections == 0)


@pytest.mark.parametrize("greeting", [b"CONNECT\n", b"CONNECT -1\n", b"CONNECT 99999999999\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 100, b""])
def test_a_greeting_that_is_none_ends_the_client(guest: Guest, tmp_path: Path, greeting: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(tmp_path / "agent.sock"))
        sock.sendall(greeting)
        sock.shutdown(socket.SHUT_WR)
        try:
            assert sock.recv(10) == b""
        except ConnectionResetError:
            pass  # closed with bytes unread


def test_the_ports_have_no_name(guest: Guest) -> None:
    """A container in the agent's network namespace sees the names of its unix sockets."""
    names = [line.split()[7] for line in Path("/proc/net/unix").read_text().splitlines()[1:] if len(line.split()) > 7]
    assert not [name for name in names if "1024" in name]


def test_another_relay_takes_over_the_stream(guest: Guest, dial: "Callable[[int], socket.socket]", tmp_path: Path) -> None:
    """As after a guest was saved in use and loaded: its connections end, and new ones work."""
    with dial(PORT) as old, guest.near.dup() as stream:
        old.sendall(b"echoed to nobody")
        guest.relay.quiesce()
        guest.relay.close()
        waiting, ready = socket.socketpair()
        (tmp_path / "agent.sock").unlink()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()
        guest.relay = SerialRelay(listener, stream.dup(), ready, resume=True)
        with waiting:
            assert waiting.recv(1) == b"", "the guest has answered"
    eventually(lambda: guest.connections == 0, "the connection of the first relay lives on")
    assert _echoed(dial(PORT), b"after") == b"after"


def test_a_relay_that_is_held_goes_on_afterwards(guest: Guest, dial: "Callable[[int], socket.socket]") -> None:
    with dial(PORT) as sock:
        guest.relay.quiesce()
        sock.sendall(b"held")
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(10)
        guest.relay.resume_sending()
        sock.settimeout(30)
        assert sock.recv(10) == b"held"


def test_a_guest_that_does_not_read_cannot_be_saved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(serial_relay, "QUIESCE_SECONDS", 0.1)
    near, far = socket.socketpair()
    waiting, ready = socket.socketpair()
    relay = SerialRelay(socket.socket(socket.AF_UNIX), near, ready, resume=True)  # RESUME is never read
    try:
        assert far.recv(1, socket.MSG_PEEK)
        with pytest.raises(OSError, match="does not read"):
            relay.quiesce()
    finally:
        far.close()
        relay.close()
        waiting.close()
    assert relay.failure is None, "the end of QEMU is told by QEMU"


def test_a_guest_that_has_ended_cannot_be_saved(tmp_path: Path) -> None:
    """That is told at once, also when it ends within `quiesce`."""
    near, far = socket.socketpair()
    waiting, ready = socket.socketpair()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "agent.sock"))
    listener.listen()
    relay = SerialRelay(listener, near, ready)
    try:
        relay.quiesce()
        relay.resume_sending()
        far.close()
        for _ in range(2):
            with pytest.raises(OSError, match="has closed"):
                _quiesce_again_and_again(relay)
    finally:
        relay.close()
        waiting.close()
    assert relay.failure is None


def _quiesce_again_and_again(relay: SerialRelay) -> None:
    while True:
        relay.quiesce()
        relay.resume_sending()
