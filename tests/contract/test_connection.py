"""The connection machine: stream ids, roles, streaming flags, what is answered from below, late and long messages."""

import pytest

from innkeeper.wire import frames, status
from innkeeper.wire.connection import (
    CLIENT,
    SERVER,
    Connection,
    DataReceived,
    RequestReceived,
    ResponseReceived,
    StreamsExhausted,
)
from innkeeper.wire.envelope import Request, Response
from tests.contract.wire_helpers import answers, header, request_frame, split

LIMIT = frames.MAX_PAYLOAD
TOO_LONG = "message is over the limit of 4194304 bytes"
OPEN, CLOSED, EMPTY = frames.REMOTE_OPEN, frames.REMOTE_CLOSED, frames.NO_DATA


def data_frame(stream: int, data: bytes = b"", flags: int = 0) -> bytes:
    return frames.encode(stream, frames.DATA, flags, data)


def response_frame(stream: int, response: Response) -> bytes:
    return frames.encode(stream, frames.RESPONSE, 0, response.encode())


@pytest.fixture
def server() -> Connection:
    return Connection(SERVER)


@pytest.fixture
def client() -> Connection:
    return Connection(CLIENT)


# ids


@pytest.mark.parametrize("stream", [0, 2, 0xFFFFFFFE])
@pytest.mark.parametrize("kind", [frames.REQUEST, frames.DATA])
def test_even_ids_are_the_servers(server: Connection, stream: int, kind: int) -> None:
    assert server.receive_data(frames.encode(stream, kind, 0, Request().encode())) == []
    assert answers(server.data_to_send()) == [(stream, status.INVALID_ARGUMENT, "stream id must be odd")]
    assert server.streams == {}


def test_an_id_in_use_is_refused_and_its_call_goes_on(server: Connection) -> None:
    server.receive_data(request_frame(5))
    assert server.receive_data(request_frame(5)) == []
    assert answers(server.data_to_send()) == [(5, status.INVALID_ARGUMENT, "stream id is in use")]
    server.send_response(5, Response(payload=b"x"))
    assert answers(server.data_to_send()) == [(5, status.OK, "")]


def test_ids_may_come_in_any_order(server: Connection) -> None:
    events = server.receive_data(request_frame(9) + request_frame(0xFFFFFFFF) + request_frame(1))
    assert [event.stream for event in events] == [9, 0xFFFFFFFF, 1]
    assert server.data_to_send() == b""


def test_a_client_never_uses_an_id_twice(client: Connection) -> None:
    client._next = frames.MAX_STREAM - 2
    assert client.send_request(Request()) == frames.MAX_STREAM - 2
    assert client.send_request(Request()) == frames.MAX_STREAM
    client.data_to_send()
    with pytest.raises(StreamsExhausted):
        client.send_request(Request())
    assert client.data_to_send() == b""


# types and roles


@pytest.mark.parametrize("kind", [0, 4, 17, 255])
@pytest.mark.parametrize("role", [CLIENT, SERVER])
def test_unknown_types_are_ignored(role: str, kind: int) -> None:
    connection = Connection(role)
    assert connection.receive_data(frames.encode(1, kind, 0xFF, b"whatever") + frames.encode(2, kind, 0, b"")) == []
    assert connection.data_to_send() == b""


@pytest.mark.parametrize("kind", [0, 4, 17, 255])
def test_an_oversize_frame_of_an_unknown_type_is_ignored_too(server: Connection, kind: int) -> None:
    events = server.receive_data(header(LIMIT + 1, 1, kind) + bytes(LIMIT + 1) + request_frame(1))
    assert [event.stream for event in events] == [1]
    assert server.data_to_send() == b""


def test_frames_of_the_other_role_are_ignored(server: Connection, client: Connection) -> None:
    assert server.receive_data(response_frame(1, Response())) == []
    stream = client.send_request(Request())
    client.data_to_send()
    assert client.receive_data(request_frame(stream)) == []
    assert (server.data_to_send(), client.data_to_send()) == (b"", b"")
    assert list(client.streams) == [stream]


def test_flags_of_a_response_are_ignored(client: Connection) -> None:
    stream = client.send_request(Request())
    [event] = client.receive_data(frames.encode(stream, frames.RESPONSE, 0xFF, Response(payload=b"x").encode()))
    assert isinstance(event, ResponseReceived)
    assert event.response.payload == b"x"


# requests that never reach the user


def test_an_undecodable_request_is_answered(server: Connection) -> None:
    assert server.receive_data(frames.encode(1, frames.REQUEST, 0, b"\x0a\x05ab")) == []
    [(stream, code, message)] = answers(server.data_to_send())
    assert (stream, code) == (1, status.INVALID_ARGUMENT)
    assert "undecodable request" in message
    assert len(server.receive_data(request_frame(1))) == 1


def test_an_oversize_request_on_an_id_in_use(server: Connection) -> None:
    server.receive_data(request_frame(1))
    assert server.receive_data(header(LIMIT + 1, 1, frames.REQUEST) + bytes(LIMIT + 1)) == []
    assert answers(server.data_to_send()) == [(1, status.INVALID_ARGUMENT, "stream id is in use")]
    assert list(server.streams) == [1]


def test_the_longest_request_is_taken(server: Connection) -> None:
    envelope = Request(payload=bytes(LIMIT - 5)).encode()
    assert len(envelope) == LIMIT
    [event] = server.receive_data(frames.encode(1, frames.REQUEST, 0, envelope))
    assert isinstance(event, RequestReceived)
    assert len(event.request.payload) == LIMIT - 5


def test_the_deadline_travels(client: Connection, server: Connection) -> None:
    client.send_request(Request("s", "m", timeout_nano=1_500_000_000))
    client.send_request(Request("s", "m", timeout_nano=-1))
    events = server.receive_data(client.data_to_send())
    assert [event.request.timeout_nano for event in events if isinstance(event, RequestReceived)] == [1_500_000_000, -1]


# streaming flags


@pytest.mark.parametrize(
    ("flags", "streaming", "ended"),
    [(0, False, True), (CLOSED, True, True), (OPEN, True, False), (OPEN | CLOSED, True, False), (0x80, False, True)],
)
def test_what_a_requests_flags_mean(server: Connection, flags: int, streaming: bool, ended: bool) -> None:
    [event] = server.receive_data(request_frame(1, flags=flags))
    assert isinstance(event, RequestReceived)
    assert (event.streaming, event.ended) == (streaming, ended)


def test_data_of_a_streaming_call(server: Connection) -> None:
    server.receive_data(request_frame(1, flags=OPEN))
    data = data_frame(1, b"a") + data_frame(1) + data_frame(1, flags=EMPTY) + data_frame(1, b"z", CLOSED)
    events = server.receive_data(data)
    seen = [(event.data, event.ended) for event in events if isinstance(event, DataReceived)]
    assert seen == [(b"a", False), (b"", False), (None, False), (b"z", True)]
    server.send_response(1, Response())
    assert answers(server.data_to_send()) == [(1, status.OK, "")]
    assert server.streams == {}


@pytest.mark.parametrize(
    ("flags", "data", "code", "message"),
    [
        (0, data_frame(1, b"x"), status.INVALID_ARGUMENT, "data on a unary call"),
        (0, data_frame(1, flags=CLOSED | EMPTY), status.INVALID_ARGUMENT, "data on a unary call"),
        (CLOSED, data_frame(1, b"x"), status.INVALID_ARGUMENT, "data after the end of the stream"),
        (OPEN, header(LIMIT + 1, 1, frames.DATA) + bytes(LIMIT + 1), status.RESOURCE_EXHAUSTED, TOO_LONG),
        (0, header(LIMIT + 1, 1, frames.DATA) + bytes(LIMIT + 1), status.RESOURCE_EXHAUSTED, TOO_LONG),
    ],
)
def test_data_that_breaks_a_call(server: Connection, flags: int, data: bytes, code: int, message: str) -> None:
    """It is answered once, at once; the user hears of the end, and its own response reaches nobody."""
    server.receive_data(request_frame(1, flags=flags))
    [event] = server.receive_data(data)
    assert isinstance(event, DataReceived)
    assert (event.stream, event.data, event.ended) == (1, None, True)
    assert answers(server.data_to_send()) == [(1, code, message)]
    assert server.receive_data(data) == []
    server.send_response(1, Response(payload=b"late"))
    assert server.data_to_send() == b""
    assert server.streams == {}


def test_a_broken_calls_late_response_answers_no_other_call(server: Connection) -> None:
    server.receive_data(request_frame(1) + data_frame(1))
    server.data_to_send()
    assert server.receive_data(request_frame(1)) == []
    assert answers(server.data_to_send()) == [(1, status.INVALID_ARGUMENT, "stream id is in use")]
    server.send_response(1, Response(payload=b"of the first"))
    assert server.data_to_send() == b""
    assert len(server.receive_data(request_frame(1))) == 1


def test_data_after_the_end_of_a_stream(server: Connection) -> None:
    server.receive_data(request_frame(1, flags=OPEN) + data_frame(1, flags=CLOSED | EMPTY))
    [event] = server.receive_data(data_frame(1, b"x"))
    assert isinstance(event, DataReceived)
    assert answers(server.data_to_send()) == [(1, status.INVALID_ARGUMENT, "data after the end of the stream")]


def test_data_on_a_stream_nobody_opened(server: Connection) -> None:
    assert server.receive_data(data_frame(7, b"x")) == []
    assert answers(server.data_to_send()) == [(7, status.INVALID_ARGUMENT, "data on a stream that was never opened")]
    server.receive_data(request_frame(9))
    server.send_response(9, Response())
    server.data_to_send()
    assert server.receive_data(data_frame(9, b"late") + data_frame(3, b"late")) == []
    assert server.data_to_send() == b""


# the client's side of calls


def test_late_and_unknown_responses_are_dropped(client: Connection) -> None:
    stream = client.send_request(Request())
    client.forget(stream)
    client.forget(stream)
    data = response_frame(stream, Response(payload=b"x")) + response_frame(99, Response()) + response_frame(2, Response())
    assert client.receive_data(data) == []
    other = client.send_request(Request())
    assert [event.stream for event in client.receive_data(response_frame(other, Response()) * 2)] == [other]


def test_answers_come_in_any_order(client: Connection) -> None:
    first, second = client.send_request(Request()), client.send_request(Request())
    events = client.receive_data(response_frame(second, Response(payload=b"2")) + response_frame(first, Response(payload=b"1")))
    seen = [(event.stream, event.response.payload) for event in events if isinstance(event, ResponseReceived)]
    assert seen == [(second, b"2"), (first, b"1")]


def test_a_response_that_cannot_be_read_ends_its_call(client: Connection) -> None:
    stream = client.send_request(Request())
    [event] = client.receive_data(frames.encode(stream, frames.RESPONSE, 0, b"\xff"))
    assert isinstance(event, ResponseReceived)
    assert event.response.code == status.INTERNAL
    assert "undecodable response" in event.response.message


def test_an_oversize_response_ends_its_call_and_no_other(client: Connection) -> None:
    first, second = client.send_request(Request()), client.send_request(Request())
    data = header(LIMIT + 1, first, frames.RESPONSE) + bytes(LIMIT + 1) + response_frame(second, Response(payload=b"x"))
    events = client.receive_data(data)
    seen = [(event.stream, event.response.code, event.response.payload) for event in events if isinstance(event, ResponseReceived)]
    assert seen == [(first, status.RESOURCE_EXHAUSTED, b""), (second, status.OK, b"x")]
    assert client.streams == {}


def test_data_on_a_unary_call_of_ours_ends_it(client: Connection) -> None:
    stream = client.send_request(Request())
    [event] = client.receive_data(data_frame(stream, b"x"))
    assert isinstance(event, ResponseReceived)
    assert (event.response.code, event.response.message) == (status.INVALID_ARGUMENT, "data on a unary call")
    assert client.streams == {}


def test_a_request_that_is_too_long_is_not_sent(client: Connection) -> None:
    with pytest.raises(frames.FrameTooLong):
        client.send_request(Request(payload=bytes(LIMIT)))
    assert (client.data_to_send(), client.streams) == (b"", {})
    assert client.send_request(Request()) == 1


# the server's responses


def test_a_response_that_is_too_long_becomes_an_error(server: Connection) -> None:
    server.receive_data(request_frame(1) + request_frame(3) + request_frame(5))
    server.send_response(1, Response(payload=bytes(LIMIT)))
    server.send_response(3, Response(status.INTERNAL, "x" * LIMIT))
    server.send_response(5, Response(payload=bytes(LIMIT - 5)))
    sent = split(server.data_to_send())
    assert [stream for stream, _, _, _ in sent] == [1, 3, 5]
    codes = [Response.decode(payload).code for _, _, _, payload in sent]
    assert codes == [status.RESOURCE_EXHAUSTED, status.RESOURCE_EXHAUSTED, status.OK]
    assert len(sent[2][3]) == LIMIT
    assert server.streams == {}


def test_a_second_response_reaches_nobody(server: Connection) -> None:
    server.receive_data(request_frame(1))
    server.send_response(1, Response())
    server.data_to_send()
    server.send_response(1, Response())
    server.send_response(3, Response())
    assert server.data_to_send() == b""
