"""A local socket for a guest's port: here the guest is a unix socket that echoes."""

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.vm import proxy

PATIENCE = 30.0


def echo(sock: socket.socket) -> None:
    with sock:
        while data := sock.recv(1 << 16):
            sock.sendall(data)


@contextmanager
def guest(path: Path, behave: Callable[[socket.socket], None] = echo) -> Iterator[str]:
    """Its address."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(64)

    def accept() -> None:
        try:
            while True:
                threading.Thread(target=behave, args=(listener.accept()[0],)).start()
        except OSError:
            pass  # shut down

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"unix://{path}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


@contextmanager
def serving(path: Path, address: str) -> Iterator[None]:
    alive = threading.Event()
    alive.set()
    with proxy.listening(path) as listener:
        thread = threading.Thread(target=proxy.serve, args=(listener, address, alive.is_set))
        thread.start()
        try:
            yield
        finally:
            alive.clear()
            thread.join(PATIENCE)
            assert not thread.is_alive(), "it ends when its guest has ended"


def connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(path))
    sock.settimeout(PATIENCE)
    return sock


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(proxy, "HALF_CLOSE_SECONDS", 0.05)


def test_many_connections_with_much_data(tmp_path: Path) -> None:
    data = os.urandom(2_000_003)
    with guest(tmp_path / "guest") as address, serving(tmp_path / "local", address):
        clients = [connected(tmp_path / "local") for _ in range(20)]
        senders = [threading.Thread(target=sock.sendall, args=(data,)) for sock in clients]
        for thread in senders:
            thread.start()
        for sock in clients:
            received = bytearray()
            while len(received) < len(data):
                received += sock.recv(1 << 20)
            assert received == data
        for thread in senders:
            thread.join()
        for sock in clients:
            sock.close()


def test_the_guest_s_end_is_the_client_s(tmp_path: Path) -> None:
    def greet(sock: socket.socket) -> None:
        with sock:
            sock.sendall(b"goodbye")

    with guest(tmp_path / "guest", greet) as address, serving(tmp_path / "local", address), connected(tmp_path / "local") as sock:
        assert sock.recv(100) == b"goodbye"
        assert sock.recv(100) == b""


def test_the_client_s_end_is_the_guest_s_even_if_it_stays(tmp_path: Path) -> None:
    ended = threading.Event()

    def stay(sock: socket.socket) -> None:
        with sock:
            assert sock.recv(100) == b"x"
            while sock.recv(100):
                pass
            ended.set()

    with guest(tmp_path / "guest", stay) as address, serving(tmp_path / "local", address):
        with connected(tmp_path / "local") as sock:
            sock.sendall(b"x")
        assert ended.wait(PATIENCE)


def test_a_guest_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(tmp_path / "local", f"unix://{tmp_path}/nobody"), connected(tmp_path / "local") as sock:
        assert sock.recv(1) == b""
    assert "connection closed" in capsys.readouterr().err


def test_the_socket_is_the_user_s_alone_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "local"
    with proxy.listening(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(InnkeeperError, match="is in use by another process"), proxy.listening(path):
            pass
        assert path.is_socket()
    assert not path.exists()


def test_what_a_killed_proxy_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "local"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(path))
    left.close()
    with proxy.listening(path), connected(path):
        pass


def test_a_file_in_its_place_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("content")
    with pytest.raises(InnkeeperError, match="cannot listen on"), proxy.listening(path):
        pass
    assert path.read_text() == "content"
