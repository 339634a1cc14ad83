"""Frames to the byte, and how the machine puts them together from pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innkeeper.wire import frames
from innkeeper.wire.connection import CLIENT, SERVER, Connection, Event, RequestReceived, ResponseReceived
from innkeeper.wire.envelope import Request, Response
from tests.contract.wire_helpers import answers, header, request_frame

LIMIT = 4 << 20


def test_header_bytes() -> None:
    assert frames.encode(1, frames.REQUEST, 0, b"abc") == b"\x00\x00\x00\x03\x00\x00\x00\x01\x01\x00abc"
    assert frames.encode(0x01020305, frames.RESPONSE, 0, b"") == b"\x00\x00\x00\x00\x01\x02\x03\x05\x02\x00"
    assert frames.encode(0xFFFFFFFF, frames.DATA, 0x5, b"x") == b"\x00\x00\x00\x01\xff\xff\xff\xff\x03\x05x"
    assert (frames.REMOTE_CLOSED, frames.REMOTE_OPEN, frames.NO_DATA) == (1, 2, 4)


def test_the_longest_payload_is_four_mebibytes() -> None:
    assert frames.MAX_PAYLOAD == LIMIT
    assert frames.encode(1, frames.REQUEST, 0, bytes(LIMIT))[:10] == b"\x00\x40\x00\x00\x00\x00\x00\x01\x01\x00"
    with pytest.raises(frames.FrameTooLong, match="4194305"):
        frames.encode(1, frames.REQUEST, 0, bytes(LIMIT + 1))


def test_a_call_on_the_wire() -> None:
    client, server = Connection(CLIENT), Connection(SERVER)
    assert client.send_request(Request("grpc.Health", "Check")) == 1
    sent = client.data_to_send()
    assert sent == b"\x00\x00\x00\x14\x00\x00\x00\x01\x01\x00\x0a\x0bgrpc.Health\x12\x05Check"
    [event] = server.receive_data(sent)
    assert isinstance(event, RequestReceived)
    assert (event.stream, event.request.service, event.request.method) == (1, "grpc.Health", "Check")
    assert (event.streaming, event.ended) == (False, True)
    server.send_response(1, Response(payload=b"\x08\x01"))
    answer = server.data_to_send()
    assert answer == b"\x00\x00\x00\x04\x00\x00\x00\x01\x02\x00\x12\x02\x08\x01"
    [response] = client.receive_data(answer)
    assert isinstance(response, ResponseReceived)
    assert (response.stream, response.response.code, response.response.payload) == (1, 0, b"\x08\x01")
    assert client.streams == server.streams == {}
    assert [client.send_request(Request()) for _ in range(3)] == [3, 5, 7]


def test_data_to_send_empties_the_queue() -> None:
    client = Connection(CLIENT)
    assert client.data_to_send() == b""
    client.send_request(Request("a"))
    client.send_request(Request("b"))
    assert client.outgoing == 26
    assert client.data_to_send() == frames.encode(1, 1, 0, b"\x0a\x01a") + frames.encode(3, 1, 0, b"\x0a\x01b")
    assert client.outgoing == 0
    assert client.data_to_send() == b""


def facts(events: list[Event]) -> list[tuple[object, ...]]:
    """Events as values that can be compared."""
    result: list[tuple[object, ...]] = []
    for event in events:
        if isinstance(event, RequestReceived):
            request = event.request
            result.append(("request", event.stream, request.service, request.payload, event.streaming, event.ended))
        elif isinstance(event, ResponseReceived):
            result.append(("response", event.stream, event.response.code, event.response.message, event.response.payload))
        else:
            result.append(("data", event.stream, event.data, event.ended))
    return result


def taken(role: str, data: bytes, sizes: list[int]) -> tuple[list[tuple[object, ...]], bytes, bool]:
    """What a connection makes of the bytes when they come in pieces of these sizes, over and over; and what it answers."""
    connection = Connection(role)
    if role == CLIENT:
        for _ in range(4):
            connection.send_request(Request())
        connection.data_to_send()
    events: list[Event] = []
    position = turn = 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        events += connection.receive_data(data[position : position + size])
        position, turn = position + size, turn + 1
    return facts(events), connection.data_to_send(), connection.mid_frame


FRAMES = st.builds(
    frames.encode,
    st.integers(0, 12),
    st.integers(0, 5),
    st.integers(0, 7),
    st.one_of(st.binary(max_size=30), st.builds(Request, st.text(max_size=5), payload=st.binary(max_size=60)).map(Request.encode)),
)
STREAM = st.one_of(st.lists(FRAMES, max_size=20).map(b"".join), st.binary(max_size=200))


@given(st.sampled_from([CLIENT, SERVER]), STREAM, st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_pieces_of_any_size_mean_the_same(role: str, data: bytes, sizes: list[int]) -> None:
    whole = taken(role, data, [max(1, len(data))])
    assert taken(role, data, [1]) == whole
    assert taken(role, data, sizes) == whole


def test_missing_bytes_of_the_frame_that_arrives() -> None:
    server = Connection(SERVER)
    assert (server.missing, server.mid_frame) == (0, False)
    frame = frames.encode(1, frames.REQUEST, 0, Request("a", "b", bytes(90)).encode())
    seen = []
    for byte in frame[:-1]:
        server.receive_data(bytes([byte]))
        assert server.mid_frame
        seen.append(server.missing)
    assert seen == [0] * 9 + list(range(len(frame) - 10, 0, -1))
    assert len(server.receive_data(frame[-1:])) == 1
    assert (server.missing, server.mid_frame) == (0, False)


@pytest.mark.parametrize("size", [1 << 20, 4093, LIMIT + 11])
def test_an_oversize_request_is_discarded_and_the_connection_goes_on(size: int) -> None:
    server = Connection(SERVER)
    follows = request_frame(3)
    # the body is made of what would be frames, were it read
    body = (follows * (LIMIT // len(follows) + 1))[: LIMIT + 1]
    data = header(LIMIT + 1, 1, frames.REQUEST) + body + follows
    events: list[Event] = []
    for position in range(0, len(data), size):
        events += server.receive_data(data[position : position + size])
    assert [event.stream for event in events] == [3]
    [answer] = answers(server.data_to_send())
    assert answer[:2] == (1, 8)
    assert "4194304" in answer[2]
    assert not server.mid_frame
    assert server._frames._buffer == b""


def test_the_longest_length_there_is_holds_no_memory() -> None:
    server = Connection(SERVER)
    server.receive_data(header(0xFFFFFFFF, 1, frames.REQUEST))
    chunk = bytes(1 << 20)
    for _ in range(64):
        assert server.receive_data(chunk) == []
    assert server.missing == 0xFFFFFFFF - (64 << 20)
    assert len(server._frames._buffer) == 0
    assert server.mid_frame
