"""A ttRPC connection as a state machine without sockets: bytes in, events out, bytes to send.

    for event in connection.receive_data(data): ...
    connection.send_response(stream, Response(...))
    sock.send(connection.data_to_send())

The host's client, the gateway and the agent share this code, although the first uses threads and
the others an event loop. This is why it does no I/O and takes no locks: the caller does both.

An error in one call is answered on its stream, or becomes that call's response. The connection goes
on, because the header still gives the position of the next frame.
"""

from innkeeper.wire import frames, status
from innkeeper.wire.envelope import DecodeError, Request, Response

CLIENT = "client"
SERVER = "server"


class RequestReceived:
    """A call has begun.

    `streaming` is true if the client expects data frames. `ended` is true if it sends none itself.
    """

    __slots__ = ("ended", "request", "stream", "streaming")

    def __init__(self, stream: int, request: Request, streaming: bool, ended: bool) -> None:
        self.stream = stream
        self.request = request
        self.streaming = streaming
        self.ended = ended


class ResponseReceived:
    """A call has ended with a response."""

    __slots__ = ("response", "stream")

    def __init__(self, stream: int, response: Response) -> None:
        self.stream = stream
        self.response = response


class DataReceived:
    """A message of a streaming call.

    `data` is None if the frame carried only flags. `ended` means that the peer sends no more.
    """

    __slots__ = ("data", "ended", "stream")

    def __init__(self, stream: int, data: bytes | None, ended: bool) -> None:
        self.stream = stream
        self.data = data
        self.ended = ended


Event = RequestReceived | ResponseReceived | DataReceived


class _Stream:
    """The state of an open stream: what the peer may still send.

    `broken` means that this module answered the call already, but its user does not know yet.
    """

    __slots__ = ("broken", "remote_open", "streaming")

    def __init__(self, streaming: bool, remote_open: bool) -> None:
        self.streaming = streaming
        self.remote_open = remote_open
        self.broken = False


class StreamsExhausted(Exception):
    """All stream ids of this connection are used up. An id is never reused."""


class Connection:
    """The state machine of one connection.

    `role` is CLIENT or SERVER. `limit` is the longest payload in bytes. Both ends must agree on it
    if it is not the default.
    """

    def __init__(self, role: str, limit: int = frames.MAX_PAYLOAD) -> None:
        self.role = role
        self.limit = limit
        self.streams: dict[int, _Stream] = {}
        self._highest = 0
        self._next = 1
        self._frames = frames.Decoder(limit)
        self._out: list[bytes] = []
        self.outgoing = 0
        """Bytes queued and not yet handed out by data_to_send."""

    @property
    def mid_frame(self) -> bool:
        """Return whether an end of file now would cut a frame."""
        return self._frames.mid_frame

    @property
    def missing(self) -> int:
        """Return how many bytes the current frame still lacks, as far as its header is known."""
        return self._frames.missing

    # receiving

    def receive_data(self, data: bytes) -> list[Event]:
        """Process received bytes, split in any way, and return the events that they complete."""
        events: list[Event] = []
        for stream, kind, flags, payload in self._frames.decode(data):
            event = self._on_frame(stream, kind, flags, payload)
            if event is not None:
                events.append(event)
        return events

    def _on_frame(self, stream: int, kind: int, flags: int, payload: bytes | None) -> Event | None:
        """Process one whole frame.

        Frame types without meaning for this role are ignored, since a later protocol may define
        them.
        """
        if self.role == CLIENT:
            if kind == frames.RESPONSE:
                return self._on_response(stream, payload)
            return self._on_data(stream, flags, payload) if kind == frames.DATA else None
        if kind not in (frames.REQUEST, frames.DATA):
            return None
        if stream % 2 == 0:
            return self._fail(stream, status.INVALID_ARGUMENT, "stream id must be odd")
        return self._on_request(stream, flags, payload) if kind == frames.REQUEST else self._on_data(stream, flags, payload)

    def _on_request(self, stream: int, flags: int, payload: bytes | None) -> Event | None:
        """Open a stream for a request.

        Ids need not increase. A client whose threads number their calls before they wait for the
        socket may send them out of order.
        """
        if stream in self.streams:
            return self._fail(stream, status.INVALID_ARGUMENT, "stream id is in use")
        self._highest = max(self._highest, stream)
        if payload is None:
            return self._fail(stream, status.RESOURCE_EXHAUSTED, f"message is over the limit of {self.limit} bytes")
        try:
            request = Request.decode(payload)
        except DecodeError as error:
            return self._fail(stream, status.INVALID_ARGUMENT, f"undecodable request: {error}")
        remote_open = bool(flags & frames.REMOTE_OPEN)
        streaming = remote_open or bool(flags & frames.REMOTE_CLOSED)
        self.streams[stream] = _Stream(streaming, remote_open)
        return RequestReceived(stream, request, streaming, not remote_open)

    def _on_response(self, stream: int, payload: bytes | None) -> Event | None:
        if self.streams.pop(stream, None) is None:
            return None  # late: the caller has given up, and ttRPC has no frame to cancel a call
        if payload is None:
            message = f"response is over the limit of {self.limit} bytes"
            return ResponseReceived(stream, Response(status.RESOURCE_EXHAUSTED, message))
        try:
            return ResponseReceived(stream, Response.decode(payload))
        except DecodeError as error:
            return ResponseReceived(stream, Response(status.INTERNAL, f"undecodable response: {error}"))

    def _on_data(self, stream: int, flags: int, payload: bytes | None) -> Event | None:
        state = self.streams.get(stream)
        if state is None:
            if self.role == SERVER and stream > self._highest:
                return self._fail(stream, status.INVALID_ARGUMENT, "data on a stream that was never opened")
            return None
        if state.broken:
            return None
        if payload is None:
            return self._break(stream, status.RESOURCE_EXHAUSTED, f"message is over the limit of {self.limit} bytes")
        if not state.streaming:
            return self._break(stream, status.INVALID_ARGUMENT, "data on a unary call")
        if not state.remote_open:
            return self._break(stream, status.INVALID_ARGUMENT, "data after the end of the stream")
        ended = bool(flags & frames.REMOTE_CLOSED)
        if ended:
            state.remote_open = False
        return DataReceived(stream, None if flags & frames.NO_DATA else payload, ended)

    def _fail(self, stream: int, code: int, message: str) -> Event | None:
        """Send an error as the response. Returns None, which callers return as "no event"."""
        self._send(frames.encode(stream, frames.RESPONSE, 0, Response(code, message).encode()))
        return None

    def _break(self, stream: int, code: int, message: str) -> Event | None:
        """End an open call because of a protocol error.

        A server sends the error as the answer. On a client, the caller gets it as the response. On
        the server, the id stays in use until the call's user has responded too. Otherwise the late
        response could be sent to a new call of the same id.
        """
        if self.role == SERVER:
            self.streams[stream].broken = True
            self._fail(stream, code, message)
            return DataReceived(stream, None, ended=True)
        del self.streams[stream]
        return ResponseReceived(stream, Response(code, message))

    # sending

    def send_request(self, request: Request) -> int:
        """Begin a unary call and return its stream id.

        Raises FrameTooLong or StreamsExhausted, with nothing queued.
        """
        if self._next > frames.MAX_STREAM:
            raise StreamsExhausted
        frame = frames.encode(self._next, frames.REQUEST, 0, request.encode(), self.limit)
        stream, self._next = self._next, self._next + 2
        self.streams[stream] = _Stream(streaming=False, remote_open=True)
        self._send(frame)
        return stream

    def send_response(self, stream: int, response: Response) -> None:
        """End a call. Does nothing if the call is over already.

        A response over the limit is replaced by a RESOURCE_EXHAUSTED error.
        """
        state = self.streams.pop(stream, None)
        if state is None or state.broken:
            return
        try:
            frame = frames.encode(stream, frames.RESPONSE, 0, response.encode(), self.limit)
        except frames.FrameTooLong as error:
            frame = frames.encode(stream, frames.RESPONSE, 0, Response(status.RESOURCE_EXHAUSTED, str(error)).encode())
        self._send(frame)

    def forget(self, stream: int) -> None:
        """Drop a call because its caller has given up. A response that still arrives is ignored."""
        self.streams.pop(stream, None)

    def data_to_send(self) -> bytes:
        """Return everything queued since the last call."""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self.outgoing = 0
        return data

    def _send(self, frame: bytes) -> None:
        self._out.append(frame)
        self.outgoing += len(frame)
