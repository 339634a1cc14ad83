"""ttRPC frames: a ten-byte header, then the payload.

The header is length (4 bytes), stream id (4), type (1) and flags (1), big endian. Source:
containerd/ttrpc PROTOCOL.md.
"""

from struct import Struct

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
