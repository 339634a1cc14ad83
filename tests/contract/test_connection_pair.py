"""Two machines back to back: whatever the order of answers and the size of pieces, each call gets its own answer."""

from hypothesis import given
from hypothesis import strategies as st

from innkeeper.wire import status
from innkeeper.wire.connection import CLIENT, SERVER, Connection, DataReceived, RequestReceived, ResponseReceived
from innkeeper.wire.envelope import Request, Response

PIECES = st.lists(st.integers(1, 200), min_size=1, max_size=6)


class Line:
    """Moves bytes from one machine to another in pieces of given sizes, over and over."""

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


@given(st.lists(st.one_of(st.none(), st.binary(max_size=100)), max_size=10), st.lists(st.binary(max_size=100), max_size=10), PIECES, PIECES)
def test_streaming_calls(sent: list[bytes | None], returned: list[bytes], up: list[int], down: list[int]) -> None:
    """Data both ways, an empty message being one, then the end of each side. None: flags alone."""
    client, server = Connection(CLIENT), Connection(SERVER)
    there, back = Line(client, server, up), Line(server, client, down)
    stream = client.send_request(Request("s", "m"), streaming=True)
    for data in sent:
        client.send_data(stream, data)
    client.send_data(stream, None, ended=True)
    events = there.move()
    assert isinstance(events[0], RequestReceived)
    data_events = [event for event in events if isinstance(event, DataReceived)]
    assert [(event.data, event.ended) for event in data_events] == [*((data, False) for data in sent), (None, True)]
    for data in returned:
        server.send_data(stream, data)
    server.send_response(stream, Response(payload=b"end"))
    events = back.move()
    assert [event.data for event in events if isinstance(event, DataReceived)] == returned
    last = events[-1]
    assert isinstance(last, ResponseReceived)
    assert last.response.payload == b"end"
    assert client.streams == server.streams == {}
