"""Frames as values, for tests that speak the protocol by hand."""

from innkeeper.wire import frames
from innkeeper.wire.envelope import Request, Response


def request_frame(
    stream: int, service: str = "grpc.Health", method: str = "Check", payload: bytes = b"", *, nano: int = 0, flags: int = 0
) -> bytes:
    """A call, as a client sends it. `nano`: its deadline."""
    return frames.encode(stream, frames.REQUEST, flags, Request(service, method, payload, nano).encode())


def header(length: int, stream: int, kind: int, flags: int = 0) -> bytes:
    """A header that may lie about what follows."""
    return frames.HEADER.pack(length, stream, kind, flags)


def split(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """(stream, kind, flags, payload) of each frame; the bytes must be whole frames."""
    result = []
    while data:
        length, stream, kind, flags = frames.HEADER.unpack_from(data)
        assert len(data) >= 10 + length, "a frame is cut"
        result.append((stream, kind, flags, data[10 : 10 + length]))
        data = data[10 + length :]
    return result


def answers(data: bytes) -> list[tuple[int, int, str]]:
    """(stream, code, message) of the responses that these bytes consist of."""
    result = []
    for stream, kind, flags, payload in split(data):
        assert (kind, flags) == (frames.RESPONSE, 0)
        response = Response.decode(payload)
        result.append((stream, response.code, response.message))
    return result
