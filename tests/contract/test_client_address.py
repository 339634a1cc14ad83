"""How the client dials each kind of address, and what it says where it cannot."""

import errno
import socket
from pathlib import Path

import pytest

from innkeeper.client import connect
from innkeeper.dial import dial
from innkeeper.errors import InnkeeperError
from innkeeper.wire.pb import health_pb2
from tests.contract.agent_process import CHECK_ANSWER, PATIENCE, AgentProcess
from tests.contract.fake_agent import listening


@pytest.mark.parametrize(
    "address",
    [
        "",
        "/run/agent.sock",
        "unix://",
        "tcp://localhost:1024",
        "vsock://3",
        "vsock://3:",
        "vsock://:1024",
        "vsock://x:1024",
        "vsock://3:y",
        "vsock://-1:1024",
        "vsock://3:1024:7",
        "vsock://3:4294967296",
        "vsock://3:99999999999999999999999",
        "vsock://3:1_024",
        "vsock:// 3:1024",
        "vsock://\u0663:1024",
        "hybrid:///run/vsock.sock",
        "hybrid://:1024",
        "hybrid:///run/vsock.sock:",
        "hybrid:///run/vsock.sock:no",
        "hybrid:///run/vsock.sock:-1",
        "hybrid:///run/vsock.sock:4294967296",
    ],
)
def test_malformed_addresses_are_named(address: str) -> None:
    with pytest.raises(InnkeeperError, match="malformed agent address") as caught:
        dial(address, 1)
    assert caught.value.hint is not None


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        dial(f"unix://{tmp_path}/none", 1)
    with pytest.raises(FileNotFoundError):
        dial(f"hybrid://{tmp_path}/none:1024", 1)
    with pytest.raises(ConnectionRefusedError):
        dial("unix://@innkeeper-test-nobody", 1)
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(stale))
    with pytest.raises(ConnectionRefusedError):
        dial(f"unix://{stale}", 1)
    with pytest.raises(ConnectionRefusedError):
        connect(f"unix://{stale}", 0.05)


def test_a_machine_that_vsock_does_not_reach() -> None:
    """Without the host's vsock the family is unknown; with it, no machine has this number."""
    with pytest.raises(OSError) as caught:
        dial("vsock://4294967294:1024", 0.2)
    assert isinstance(caught.value, TimeoutError) or caught.value.errno in (
        *(errno.EAFNOSUPPORT, errno.ENODEV, errno.ENETUNREACH),
        *(errno.EADDRNOTAVAIL, errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH),
    )


def greet(sock: socket.socket, number: int) -> None:
    sock.sendall(b"hello")


@pytest.mark.parametrize("length", [20, 100, 107, 108, 200])
def test_unix_paths_of_any_length(tmp_path: Path, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("d" * length)
    folder.mkdir()
    monkeypatch.chdir(folder)
    with listening(Path("s"), greet), dial(f"unix://{folder}/s", PATIENCE) as sock:
        assert sock.gettimeout() is None
        assert sock.recv(5) == b"hello"


def test_a_full_backlog_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(0)
        with dial(f"unix://{path}", PATIENCE):
            with pytest.raises(TimeoutError):
                dial(f"unix://{path}", 0.05)


def test_the_real_agent_by_path(agent: AgentProcess) -> None:
    with connect(f"unix://{agent.path}", PATIENCE) as client:
        answer = client.call("grpc.Health", "Version", health_pb2.CheckRequest(), health_pb2.VersionCheckResponse, PATIENCE)
    assert answer.agent_version == "4.1.0"


# hybrid vsock: a relay on a unix socket


def line(sock: socket.socket) -> bytes:
    """What the dialler says first."""
    data = b""
    while not data.endswith(b"\n"):
        byte = sock.recv(1)
        assert byte, "the dialler hung up"
        data += byte
    return data


def hybrid(path: Path, timeout: float | None = PATIENCE) -> socket.socket:
    return dial(f"hybrid://{path}:1024", timeout)


def test_the_greeting_is_taken_and_nothing_after_it(tmp_path: Path) -> None:
    said: list[bytes] = []

    def serve(sock: socket.socket, number: int) -> None:
        said.append(line(sock))
        sock.sendall(b"OK 1073741824\n" + CHECK_ANSWER)

    with listening(tmp_path / "s", serve), hybrid(tmp_path / "s") as sock:
        assert sock.gettimeout() is None
        assert sock.recv(100) == CHECK_ANSWER
    assert said == [b"CONNECT 1024\n"]


def test_a_greeting_in_pieces(tmp_path: Path) -> None:
    def serve(sock: socket.socket, number: int) -> None:
        line(sock)
        for byte in b"OK 5\nx":
            sock.sendall(bytes([byte]))

    with listening(tmp_path / "s", serve), hybrid(tmp_path / "s") as sock:
        assert sock.recv(1) == b"x"


@pytest.mark.parametrize(
    ("answer", "why"), [(b"", "nothing listens on vsock port 1024"), (b"NO\n", "answered"), (b"O" * 200, "nothing listens")]
)
def test_refusals(tmp_path: Path, answer: bytes, why: str) -> None:
    def serve(sock: socket.socket, number: int) -> None:
        line(sock)
        sock.sendall(answer)
        sock.shutdown(socket.SHUT_RDWR)

    with listening(tmp_path / "s", serve), pytest.raises(ConnectionRefusedError, match=why):
        hybrid(tmp_path / "s")


def test_a_relay_that_sleeps_is_poked(tmp_path: Path) -> None:
    """It answers the first connection when a second one wakes it."""
    first: list[socket.socket] = []

    def serve(sock: socket.socket, number: int) -> None:
        if number == 1:
            line(sock)
            first.append(sock)
        elif number == 2:
            first[0].sendall(b"OK 7\nawake")

    with listening(tmp_path / "s", serve), hybrid(tmp_path / "s") as sock:
        assert sock.recv(5) == b"awake"


@pytest.mark.parametrize("begun", [b"", b"O", b"OK 12"])
def test_a_relay_that_never_answers_ends_in_time(tmp_path: Path, begun: bytes) -> None:
    def serve(sock: socket.socket, number: int) -> None:
        if number == 1:
            line(sock)
            sock.sendall(begun)

    with listening(tmp_path / "s", serve), pytest.raises(TimeoutError):
        hybrid(tmp_path / "s", 0.1)


def test_refusals_are_tried_again_until_the_time_is_up(tmp_path: Path) -> None:
    """As while a guest boots: its port is refused until the agent listens."""

    def serve(sock: socket.socket, number: int) -> None:
        line(sock)
        if number < 4:
            sock.shutdown(socket.SHUT_RDWR)
        else:
            sock.sendall(b"OK 1\n")
            sock.recv(100)
            sock.sendall(CHECK_ANSWER)

    with listening(tmp_path / "s", serve), connect(f"hybrid://{tmp_path}/s:1024", PATIENCE) as client:
        answer = client.call("grpc.Health", "Check", health_pb2.CheckRequest(), health_pb2.HealthCheckResponse, PATIENCE)
        assert answer.status == 1
