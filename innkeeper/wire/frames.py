"""Frames of ttRPC: a ten-byte header (length, stream id, type, flags; big endian), then the payload.

Source: containerd/ttrpc PROTOCOL.md.
"""

from struct import Struct

HEADER = Struct(">IIBB")

MAX_PAYLOAD = 4 << 20
"""The longest payload either side sends. What is longer is discarded by the receiver, and that stream fails."""

MAX_STREAM = (1 << 32) - 1

REQUEST = 1
RESPONSE = 2
DATA = 3

REMOTE_CLOSED = 0x1
"""The sender of this frame sends no more on this stream."""
REMOTE_OPEN = 0x2
"""The sender of this request goes on with data frames."""
NO_DATA = 0x4
"""A data frame that carries no message, only flags."""


class FrameTooLong(ValueError):
    """A payload of our own that is over the limit."""

    def __init__(self, length: int, limit: int = MAX_PAYLOAD) -> None:
        super().__init__(f"message of {length} bytes is over the limit of {limit}")


def encode(stream: int, kind: int, flags: int, payload: bytes, limit: int = MAX_PAYLOAD) -> bytes:
    """One frame. Raises FrameTooLong when the payload has more bytes than `limit`."""
    if len(payload) > limit:
        raise FrameTooLong(len(payload), limit)
    return HEADER.pack(len(payload), stream, kind, flags) + payload
