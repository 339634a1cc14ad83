"""Connections to localhost of a pod's network namespace, whatever their port, with something else in place of the guest."""

import socket
import threading
from pathlib import Path

import pytest

from agent.linux import loopback
from innkeeper.dial import listen_unix, read_line
from innkeeper.shim.localhost_listener import open_listeners
from innkeeper.shim.port_forward import PortForward
from tests.forked import CLONE_NEWNET, forked

pytestmark = pytest.mark.root


@pytest.mark.parametrize("localhost", ["127.0.0.1", "::1"])
def test_every_port_of_localhost_is_forwarded(tmp_path: Path, localhost: str) -> None:
    def body() -> None:
        loopback.loopback_up()
        guest = listen_unix(tmp_path / "guest")
        listeners, link = open_listeners()
        forward = PortForward(listeners, link)
        forward.start(f"unix://{tmp_path / 'guest'}")

        def answer() -> None:
            for reply in (b"OK\nbanner", b"ERROR refused\n"):
                connection, _ = guest.accept()
                with connection:
                    line = read_line(connection, 64)
                    connection.sendall(reply)
                    if reply.startswith(b"OK"):
                        question = connection.recv(64)
                        assert connection.recv(64) == b""
                        connection.sendall(line + question)

        threading.Thread(target=answer, daemon=True).start()
        with socket.create_connection((localhost, 8080), 10) as client:
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            text = b""
            while piece := client.recv(64):
                text += piece
        assert text == b"bannerCONNECT 8080\nquestion"
        with pytest.raises(ConnectionResetError), socket.create_connection((localhost, 81), 10) as client:
            client.recv(1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", 8080), 10)
        forward.close()
        forward.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((localhost, 8080), 10)

    forked(body, unshare=CLONE_NEWNET)


def test_a_pod_without_ipv6(tmp_path: Path) -> None:
    def body() -> None:
        loopback.loopback_up()
        Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").write_text("1")
        listeners, link = open_listeners()
        assert [listener.family for listener in listeners] == [socket.AF_INET]
        forward = PortForward(listeners, link)
        forward.start(f"unix://{tmp_path / 'nobody'}")
        with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", 81), 10) as client:
            client.recv(1)
        forward.close()

    forked(body, unshare=CLONE_NEWNET)
