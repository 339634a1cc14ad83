"""Multiplex connections to ports over one byte stream, as a state machine without I/O.

A virtio-serial port is one stream for the life of a VM. On a host without vhost-vsock it carries
what vsock would: the host opens a connection to a port of the guest, both sides send bytes, and
each ends its direction.

    for event in multiplexer.receive_data(data): ...
    multiplexer.send(connection, data)
    os.write(port, multiplexer.data_to_send())

A frame is a header of nine bytes, big endian: kind (1), connection (4), number (4). The number is
the port of OPEN, the length of the payload that follows DATA, the bytes of CREDIT, and 0 otherwise.

Flow control is for each connection by itself, so a connection whose reader is slow holds up no
other: a side may send WINDOW bytes that its peer has not consumed yet, and CREDIT returns what the
peer's reader has taken. So a side never holds more than WINDOW bytes of a connection. Only the host
opens connections, and it never uses a number twice.

A guest whose state was saved meets another host when it is loaded, and QEMU says so to neither.
The new host sends RESUME with a nonce, at a frame's beginning, for the old host was saved between
two frames (`quiesce` of the relay). The guest forgets its connections and answers RESUMED with the
nonce and the last number used. What it was sending may end in the middle of anything, so the new
host skips all bytes before that nonce.
"""

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = Struct(">BII")
WINDOW = 256 << 10
"""Bytes of a connection that may be on the way in one direction."""
CREDIT_STEP = WINDOW // 4
"""Bytes that are consumed before they are credited: one frame for many small reads."""
MAX_DATA = 16 << 10
"""Most bytes in one frame, so that a flood and a small answer take turns."""
MAX_OUTGOING = 64 << 10
"""Bytes that wait for the stream, from which on no data are read from a connection (see `room`)."""

READY, OPEN, ACCEPT, DATA, CREDIT, END, RESET, RESUME, RESUMED = range(1, 10)
"""READY: the guest serves its ports. OPEN and ACCEPT begin a connection, END closes one direction
and RESET both. RESET takes effect after the data before it. RESUME: another host has taken over."""
NONCE_SIZE = 16
WITH_PAYLOAD = (DATA, RESUME, RESUMED)


class ProtocolError(ValueError):
    """The peer sent what the protocol does not permit: the stream is of no further use."""


class Event:
    """A frame that concerns the user: its kind, connection and number, and the payload of DATA."""

    __slots__ = ("connection", "data", "kind", "number")

    def __init__(self, kind: int, connection: int, number: int, data: bytes = b"") -> None:
        self.kind = kind
        self.connection = connection
        self.number = number
        self.data = data


class _Connection:
    """The state of a connection: bytes we may send, may receive, and have consumed uncredited."""

    __slots__ = ("accepts", "consumed", "credit", "local_open", "remote_open")

    def __init__(self) -> None:
        self.credit = self.accepts = WINDOW
        self.consumed = 0
        self.local_open = self.remote_open = True


class Multiplexer:
    """One end of the stream: the host's, which opens connections, or the guest's.

    `resume` is a nonce for a host that takes over the stream of a guest that was saved: it may open
    connections once `resumed`.
    """

    def __init__(self, *, host: bool, resume: bytes = b"") -> None:
        self._host = host
        self._connections: dict[int, _Connection] = {}
        self._last = 0
        self._received = bytearray()
        self._out: list[bytes] = []
        self.outgoing = 0
        """Bytes that wait for `data_to_send`."""
        self._nonce = resume
        if resume:
            self._frame(RESUME, 0, len(resume), resume)

    @property
    def resumed(self) -> bool:
        """Whether the guest has answered RESUME, or none was sent."""
        return not self._nonce

    def data_to_send(self) -> bytes:
        """Return all bytes that wait, and forget them."""
        data = b"".join(self._out)
        self._out.clear()
        self.outgoing = 0
        return data

    def announce(self) -> None:
        """Report to the host that the ports are served."""
        self._frame(READY, 0, 0)

    def open(self, port: int) -> int:
        """Open a connection to `port` and return its number. ACCEPT or RESET is the answer."""
        self._last += 1
        self._connections[self._last] = _Connection()
        self._frame(OPEN, self._last, port)
        return self._last

    def accept(self, connection: int) -> None:
        """Accept a connection that the host has opened."""
        self._frame(ACCEPT, connection, 0)

    def room(self, connection: int) -> int:
        """Return how many bytes `send` takes now, at most MAX_DATA.

        It is 0 while the peer has to consume or the stream has to drain.
        """
        known = self._connections.get(connection)
        if known is None or self.outgoing >= MAX_OUTGOING:
            return 0
        return min(known.credit, MAX_DATA)

    def send(self, connection: int, data: bytes) -> None:
        """Send `data`, not more than `room` permits. Dropped if the connection has been reset."""
        if (known := self._connections.get(connection)) is not None:
            known.credit -= len(data)
            self._frame(DATA, connection, len(data), data)

    def consumed(self, connection: int, count: int) -> None:
        """Note that the reader of the connection has taken `count` bytes."""
        known = self._connections.get(connection)
        if known is None or not known.remote_open:
            return
        known.consumed += count
        if known.consumed >= CREDIT_STEP:
            known.accepts += known.consumed
            self._frame(CREDIT, connection, known.consumed)
            known.consumed = 0

    def end(self, connection: int) -> None:
        """End our direction of the connection. Does nothing if it has ended."""
        known = self._connections.get(connection)
        if known is not None and known.local_open:
            known.local_open = False
            self._frame(END, connection, 0)
            self._forget_if_over(connection, known)

    def reset(self, connection: int) -> None:
        """End both directions. Does nothing if the connection is over."""
        if self._connections.pop(connection, None) is not None:
            self._frame(RESET, connection, 0)

    def receive_data(self, data: bytes) -> "Iterator[Event]":
        """Take bytes of the stream and yield what they say. Raises ProtocolError."""
        self._received += data
        if self._nonce:
            if not self._skip_to_nonce():
                return
            yield Event(READY, 0, 0)
        start = 0
        try:
            while len(self._received) - start >= HEADER.size:
                kind, connection, number = HEADER.unpack_from(self._received, start)
                payload = start + HEADER.size
                if kind in WITH_PAYLOAD:
                    if number > MAX_DATA:
                        raise ProtocolError(f"frame of {number} bytes")
                    if len(self._received) < payload + number:
                        return
                    start = payload + number
                    event = Event(kind, connection, number, bytes(self._received[payload:start]))
                else:
                    start = payload
                    event = Event(kind, connection, number)
                if self._concerns_user(event):
                    yield event
        finally:
            del self._received[:start]

    def _concerns_user(self, event: Event) -> bool:
        """Keep account of a frame.

        False if it is of a connection that is over. Raises ProtocolError.
        """
        if event.kind == RESUME and not self._host:
            self._resume(event.data)
            return True
        if event.kind == (READY if self._host else OPEN):
            if event.kind == READY:
                return True
            if event.connection <= self._last:
                raise ProtocolError(f"connection {event.connection} opened again")
            self._last = event.connection
            self._connections[event.connection] = _Connection()
            return True
        known = self._connections.get(event.connection)
        if not ACCEPT <= event.kind <= RESET or (known is None and event.connection > self._last):
            raise ProtocolError(f"frame {event.kind} for connection {event.connection}")
        if known is None:
            return False  # we have reset it, and the peer did not know yet
        if event.kind == DATA:
            known.accepts -= event.number
            if known.accepts < 0 or not known.remote_open:
                raise ProtocolError(f"{event.number} bytes of connection {event.connection} that it may not send")
        elif event.kind == CREDIT:
            known.credit += event.number
            if known.credit > WINDOW:
                raise ProtocolError(f"credit of {event.number} bytes that were never sent")
        elif event.kind == END:
            known.remote_open = False
            self._forget_if_over(event.connection, known)
        elif event.kind == RESET:
            del self._connections[event.connection]
        return True

    def _skip_to_nonce(self) -> bool:
        """Drop all bytes up to RESUMED with our nonce. Return whether it has come."""
        place = self._received.find(self._nonce)
        if place < 0:
            # The end of what came may be the beginning of the frame.
            del self._received[: -(HEADER.size + NONCE_SIZE)]
            return False
        kind, self._last, _ = HEADER.unpack_from(self._received, place - HEADER.size) if place >= HEADER.size else (0, 0, 0)
        if kind != RESUMED:
            raise ProtocolError("a nonce that is not in its frame")
        del self._received[: place + NONCE_SIZE]
        self._nonce = b""
        return True

    def _resume(self, nonce: bytes) -> None:
        """Forget every connection and what waits to be sent, and answer the new host."""
        if len(nonce) != NONCE_SIZE:
            raise ProtocolError(f"nonce of {len(nonce)} bytes")
        self._connections.clear()
        self.data_to_send()
        self._frame(RESUMED, self._last, NONCE_SIZE, nonce)

    def _forget_if_over(self, connection: int, known: _Connection) -> None:
        if not known.local_open and not known.remote_open:
            del self._connections[connection]

    def _frame(self, kind: int, connection: int, number: int, payload: bytes = b"") -> None:
        self._out.append(HEADER.pack(kind, connection, number) + payload)
        self.outgoing += HEADER.size + len(payload)
