"""Who may connect to the gRPC port, and how long a frame may be behind it."""

import os
import socket

import pytest

from agent import loop
from agent.service import server
from innkeeper.wire import frames
from innkeeper.wire.connection import CLIENT, SERVER, Connection, RequestReceived, ResponseReceived
from innkeeper.wire.envelope import Request, Response
from innkeeper.wire.grpc import MAX_FRAME, MAX_MESSAGE, MAX_METADATA

VMADDR_CID_LOCAL, VMADDR_CID_HOST = 1, 2


class Vsock:
    """A listener that always has the same caller: its connections are one end of a pair whose other end is `far`."""

    family, type = socket.AF_VSOCK, socket.SOCK_STREAM

    def __init__(self, cid: int) -> None:
        self._cid = cid
        self._ready = os.open("/dev/zero", os.O_RDONLY)
        self.far, self._near = socket.socketpair()

    def fileno(self) -> int:
        return self._ready

    def _accept(self) -> tuple[int, tuple[int, int]]:
        return self._near.detach(), (self._cid, 1234)

    def close(self) -> None:
        os.close(self._ready)
        self.far.close()


@pytest.mark.parametrize(
    ("cid", "taken"), [(VMADDR_CID_HOST, True), (VMADDR_CID_LOCAL, False), (3, False), (0, False), (0xFFFFFFFF, False)]
)
def test_only_the_host_may_call(cid: int, taken: bool, capfd: pytest.CaptureFixture[str]) -> None:
    listener = Vsock(cid)
    listener.far.sendall(b"PRI * HTTP/2.0")
    sock = loop.run(server.accept(listener))  # type: ignore[arg-type]
    assert (sock is not None) == taken
    if sock is not None:
        assert sock.recv(3) == b"PRI"
        sock.close()
    else:
        with pytest.raises(ConnectionResetError):  # closed before it was read from
            listener.far.recv(1)
        assert f"connection from vsock {cid}, which is not the host" in capfd.readouterr().err
    listener.close()


def exchanged(limit: int, size: int) -> Response:
    """The answer to a call whose request and answer have `size` bytes, between two ends that agree on `limit`."""
    client, server = Connection(CLIENT, limit), Connection(SERVER, limit)
    client.send_request(Request("grpc.AgentService", "CopyFile", b"x" * size, 1 << 60, [("key", "v" * (MAX_METADATA - 3))]))
    (event,) = server.receive_data(client.data_to_send())
    assert isinstance(event, RequestReceived)
    server.send_response(event.stream, Response(payload=event.request.payload))
    (answer,) = client.receive_data(server.data_to_send())
    assert isinstance(answer, ResponseReceived)
    return answer.response


def test_a_whole_grpc_message_fits_into_a_frame_with_its_metadata() -> None:
    assert len(exchanged(MAX_FRAME, MAX_MESSAGE).payload) == MAX_MESSAGE


def test_the_limit_is_the_agreed_one() -> None:
    with pytest.raises(frames.FrameTooLong, match=f"over the limit of {frames.MAX_PAYLOAD}"):
        exchanged(frames.MAX_PAYLOAD, frames.MAX_PAYLOAD)
    with pytest.raises(frames.FrameTooLong, match=f"over the limit of {MAX_FRAME}"):
        exchanged(MAX_FRAME, MAX_FRAME)
