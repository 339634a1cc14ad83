"""ttRPC frames on vsock: encode and parse a ten-byte header and the payload behind it.

The header is length (4 bytes), stream id (4), type (1) and flags (1), big endian. Source:
containerd/ttrpc PROTOCOL.md.
"""

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = Struct(">IIBB")

MAX_PAYLOAD = 4 << 20
"""The longest payload that either side sends, in bytes.

A receiver discards a longer one and fails its stream.
"""

MAX_STREAM = (1 << 32) - 1

REQUEST = 1
RESPONSE = 2
DATA = 3

REMOTE_CLOSED = 0x1
"""The sender of this frame sends no more on this stream."""
REMOTE_OPEN = 0x2
"""The sender of this request continues with data frames."""
NO_DATA = 0x4
"""A data frame that carries no message, only flags."""


class FrameTooLong(ValueError):
    """A payload that we wanted to send and that is over the limit."""

    def __init__(self, length: int, limit: int = MAX_PAYLOAD) -> None:
        super().__init__(f"message of {length} bytes is over the limit of {limit}")


def encode(stream: int, kind: int, flags: int, payload: bytes, limit: int = MAX_PAYLOAD) -> bytes:
    """Return a whole frame. Raises FrameTooLong if the payload is longer than `limit` bytes."""
    if len(payload) > limit:
        raise FrameTooLong(len(payload), limit)
    return HEADER.pack(len(payload), stream, kind, flags) + payload


class Decoder:
    """Splits received bytes into frames. `limit` is the longest payload in bytes that is kept."""

    def __init__(self, limit: int = MAX_PAYLOAD) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._discard = 0

    @property
    def mid_frame(self) -> bool:
        """Return whether an end of file now would cut a frame."""
        return bool(self._buffer) or self._discard > 0

    @property
    def missing(self) -> int:
        """Return how many bytes the current frame still lacks.

        Returns 0 between frames and within a header, whose length is not known yet.
        """
        if self._discard:
            return self._discard
        if len(self._buffer) < HEADER.size:
            return 0
        return int(HEADER.size + HEADER.unpack_from(self._buffer)[0] - len(self._buffer))

    def decode(self, data: bytes) -> "Iterator[tuple[int, int, int, bytes | None]]":
        """Yield the frames that `data` completes, however split.

        A frame is (stream, type, flags, payload). A payload over the limit is yielded as None at
        once, so that its call can be failed, and its bytes are discarded as they arrive. They are
        never buffered: the length in a header is the peer's choice, and 4 GiB would otherwise be
        held in memory.
        """
        if self._discard:
            skipped = min(self._discard, len(data))
            self._discard -= skipped
            data = data[skipped:]
        self._buffer += data
        buffer, position = self._buffer, 0
        try:
            while len(buffer) - position >= HEADER.size:
                length, stream, kind, flags = HEADER.unpack_from(buffer, position)
                start = position + HEADER.size
                if length > self.limit:
                    position = min(start + length, len(buffer))
                    self._discard = start + length - position
                    yield stream, kind, flags, None
                    continue
                if len(buffer) - start < length:
                    return
                position = start + length
                yield stream, kind, flags, bytes(memoryview(buffer)[start:position])
        finally:
            del buffer[:position]
