"""Call the agent's Health.Check with hand-written bytes.

Message classes and threads would cost time at every start. The frame is ttRPC's: length u32, stream
u32, type u8, flags u8 (big endian), then the protobuf message Request{1 service, 2 method}. The
answer is Response{1 status{1 code, 2 message}, 2 payload}.
"""

import socket
import struct

_HEADER = struct.Struct(">IIBB")
_REQUEST = b"\x0a\x0bgrpc.Health\x12\x05Check"
_RESPONSE_TYPE = 2
_LONGEST = 65536


def check(sock: socket.socket) -> None:
    """Make one call on a connected socket.

    Raises OSError (TimeoutError, ConnectionError) unless the answer is OK.
    """
    sock.sendall(_HEADER.pack(len(_REQUEST), 1, 1, 0) + _REQUEST)
    size, stream, kind, _ = _HEADER.unpack(receive(sock, _HEADER.size))
    if kind != _RESPONSE_TYPE or stream != 1 or size > _LONGEST:
        raise ConnectionError(f"not a ttRPC answer: type {kind}, stream {stream}, {size} bytes")
    body = receive(sock, size)
    # An error starts with Response.status (field 1), which starts with its code (field 1). On the
    # wire the code of an error is never 0.
    if body[:1] == b"\x0a" and len(body) > 3 and body[2] == 0x08 and body[3] != 0:
        raise ConnectionError(f"Health.Check answered with status {body[3]}")


def receive(sock: socket.socket, size: int) -> bytes:
    """Return exactly `size` bytes. Raises ConnectionError at end of stream."""
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise ConnectionResetError("the connection ended")
        data += more
    return data


def read_ok(sock: socket.socket) -> None:
    """Read a hybrid vsock's answer to CONNECT.

    Raises OSError: ConnectionError if nothing listens on that port.
    """
    line = b""
    while not line.endswith(b"\n"):
        line += receive(sock, 1)
        if len(line) > 64:
            raise ConnectionError("hybrid vsock answered with something that is no line")
    if not line.startswith(b"OK "):
        raise ConnectionRefusedError(f"hybrid vsock answered {line!r}")
