"""Two machines back to back: whatever the order of answers and the size of pieces, each call gets its own answer."""

import itertools
from collections.abc import Iterable, Iterator

from hypothesis import given
from hypothesis import strategies as st

from innkeeper.wire import frames, status
from innkeeper.wire.connection import CLIENT, SERVER, Connection, DataReceived, RequestReceived, ResponseReceived
from innkeeper.wire.envelope import Request, Response

PIECES = st.lists(st.integers(1, 200), min_size=1, max_size=6)


def pieces(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """`data` in pieces of the given sizes, over and over."""
    endless = itertools.cycle(sizes)
    while data:
        size = next(endless)
        yield data[:size]
        data = data[size:]


class Line:
    """Moves bytes from one connection to another in pieces of given sizes, over and over."""

    def __init__(self, source: Connection, target: Connection, sizes: list[int]) -> None:
        self._source, self._target, self._sizes = source, target, sizes
        self._turn = 0

    def move(self) -> list[object]:
        data = self._source.data_to_send()
        events: list[object] = []
        while data:
            size = self._sizes[self._turn % len(self._sizes)]
            self._turn += 1
            events += self._target.receive_data(data[:size])
            data = data[size:]
        return events


@given(st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 99), st.booleans()), max_size=30), PIECES, PIECES)
def test_unary_calls(calls: list[tuple[bytes, int, bool]], up: list[int], down: list[int]) -> None:
    """Each call: its payload, its place in the order of answers, and whether its caller gives up first."""
    client, server = Connection(CLIENT), Connection(SERVER)
    there, back = Line(client, server, up), Line(server, client, down)
    wanted: dict[int, tuple[bytes, int, bool]] = {}
    for call in calls:
        wanted[client.send_request(Request("s", "m", call[0]))] = call
    requests = [event for event in there.move() if isinstance(event, RequestReceived)]
    assert [(event.stream, event.request.payload) for event in requests] == [(stream, call[0]) for stream, call in wanted.items()]
    for stream, (_, _, given_up) in wanted.items():
        if given_up:
            client.forget(stream)
    answered: dict[int, bytes] = {}
    for event in sorted(requests, key=lambda event: wanted[event.stream][1]):
        server.send_response(event.stream, Response(payload=event.request.payload[::-1]))
        for response in back.move():
            assert isinstance(response, ResponseReceived)
            assert response.response.code == status.OK
            answered[response.stream] = response.response.payload
    assert answered == {stream: payload[::-1] for stream, (payload, _, given_up) in wanted.items() if not given_up}
    assert client.streams == server.streams == {}
    assert not client.mid_frame
    assert not server.mid_frame


@given(st.lists(st.one_of(st.none(), st.binary(max_size=100)), max_size=10), PIECES, PIECES)
def test_streaming_calls(sent: list[bytes | None], up: list[int], down: list[int]) -> None:
    """Data, an empty message being one, then its end. None: flags alone."""
    client, server = Connection(CLIENT), Connection(SERVER)
    back = Line(server, client, down)
    stream = client.send_request(Request("s", "m"))
    request = bytearray(client.data_to_send())
    request[frames.HEADER.size - 1] = frames.REMOTE_OPEN
    ends = [*((data, False) for data in sent), (None, True)]
    flags = [(frames.NO_DATA if data is None else 0) | (frames.REMOTE_CLOSED if ended else 0) for data, ended in ends]
    data = bytes(request) + b"".join(
        frames.encode(stream, frames.DATA, flag, data or b"") for flag, (data, _) in zip(flags, ends, strict=True)
    )
    events = [event for piece in pieces(data, up) for event in server.receive_data(piece)]
    assert isinstance(events[0], RequestReceived)
    assert [(event.data, event.ended) for event in events if isinstance(event, DataReceived)] == ends
    server.send_response(stream, Response(payload=b"end"))
    [last] = back.move()
    assert isinstance(last, ResponseReceived)
    assert last.response.payload == b"end"
    assert client.streams == server.streams == {}
