"""How long a frame may be behind the gRPC port."""

import pytest

from innkeeper.wire import frames
from innkeeper.wire.connection import CLIENT, SERVER, Connection, RequestReceived, ResponseReceived
from innkeeper.wire.envelope import Request, Response
from innkeeper.wire.grpc import MAX_FRAME, MAX_MESSAGE, MAX_METADATA


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
