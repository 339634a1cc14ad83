"""A NETLINK_ROUTE socket: one request at a time, with its replies and errors.

The sources are netlink(7) and rtnetlink(7). The kernel processes a request inside send(2). Its
answer is queued when the call returns, so no task ever waits for one. If an answer is missing
nevertheless, an error is raised: a receive that blocks would stop PID 1.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from agent.network.messages import ifaddrmsg, ifinfmsg, ndmsg, rtmsg

RTM_NEWLINK, RTM_GETLINK, RTM_SETLINK = 16, 18, 19
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWNEIGH = 28

NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK = 0x1, 0x2, 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_CREATE = 0x100, 0x400
NLM_F_DUMP_INTR = 0x10
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLMSGERR_ATTR_MSG = 1
SOL_NETLINK = 270
NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 10, 11, 12
HEADER = struct.Struct("=IHHII")
RECEIVE_BYTES = 256 * 1024
DUMP_TRIES = 5

_CLASSES = {RTM_NEWLINK: ifinfmsg, RTM_NEWADDR: ifaddrmsg, RTM_NEWROUTE: rtmsg, RTM_NEWNEIGH: ndmsg}
_REQUEST_CLASSES = {RTM_GETLINK: ifinfmsg, RTM_SETLINK: ifinfmsg, RTM_GETADDR: ifaddrmsg, RTM_GETROUTE: rtmsg, **_CLASSES}

Message = Any
"""A message of pyroute2, with fields as `[name]` and attributes as `.get_attr(NAME)`."""


class DumpInterrupted(Exception):
    """The kernel's table changed while it was read, so the result may be inconsistent."""


def encode(kind: int, flags: int, sequence: int, fields: dict[str, Any], attrs: Sequence[tuple[str, Any]] = ()) -> bytes:
    """Return a request as bytes.

    `fields` are those of the message's fixed part, `attrs` are attributes by the kernel's names.
    """
    message = _REQUEST_CLASSES[kind]()
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = list(attrs)
    message["header"]["type"] = kind
    message["header"]["flags"] = flags | NLM_F_REQUEST
    message["header"]["sequence_number"] = sequence
    message["header"]["pid"] = 0
    message.encode()
    return bytes(message.data)


def error_text(body: bytes, flags: int) -> str:
    """Return the kernel's message in an NLMSG_ERROR (NLMSGERR_ATTR_MSG), or "" if it has none.

    `body` is the message without its header.
    """
    if not flags & NLM_F_ACK_TLVS:
        return ""
    offset = 4 + (HEADER.size if flags & NLM_F_CAPPED else _aligned(struct.unpack_from("=I", body, 4)[0]))
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if length < 4:
            return ""
        if kind & 0x3FFF == NLMSGERR_ATTR_MSG:
            return body[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += _aligned(length)
    return ""


def split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield (type, flags, sequence, whole message) for each message in a datagram.

    Raises ValueError for a truncated message.
    """
    offset = 0
    while offset < len(data):
        if len(data) - offset < HEADER.size:
            raise ValueError("netlink datagram ends inside a header")
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
        if not HEADER.size <= length <= len(data) - offset:
            raise ValueError("netlink datagram ends inside a message")
        yield kind, flags, sequence, data[offset : offset + length]
        offset += _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3


class RouteSocket:
    """A netlink socket in the network namespace of the caller: `with RouteSocket() as route:`."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._sequence = 0
        try:
            self._socket.bind((0, 0))
            for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> "RouteSocket":
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def change(
        self, kind: int, fields: dict[str, Any], attrs: Sequence[tuple[str, Any]] = (), *, flags: int = 0, subject: str = ""
    ) -> None:
        """Send a change and read its acknowledgement.

        Raises OSError with the kernel's message. `subject` becomes the file name of the error.
        """
        self._send(kind, flags | NLM_F_ACK, fields, attrs)
        try:
            for _ in self._replies():
                pass
        except OSError as error:
            raise OSError(error.errno, error.strerror, subject or None) from None

    def dump(self, kind: int, fields: dict[str, Any]) -> list[Message]:
        """Return all objects of a table.

        The kernel marks a dump that a change has interrupted (NLM_F_DUMP_INTR). The table is then
        read again, up to DUMP_TRIES times. Raises OSError.
        """
        for _ in range(DUMP_TRIES):
            self._send(kind, NLM_F_DUMP, fields, ())
            try:
                return list(self._replies())
            except DumpInterrupted:
                continue
        raise OSError(4, "the table kept changing while it was read")

    def _send(self, kind: int, flags: int, fields: dict[str, Any], attrs: Sequence[tuple[str, Any]]) -> None:
        self._sequence += 1
        self._socket.sendto(encode(kind, flags, self._sequence, fields, attrs), (0, 0))

    def _replies(self) -> Iterator[Message]:
        """Yield the decoded messages of the answer to the last request. Raises OSError.

        Messages of an earlier answer that was not read to its end are skipped, by their sequence
        number. Messages that do not come from the kernel (port 0) are skipped too.
        """
        interrupted = False
        while True:
            data, sender = self._receive()
            if sender[0] != 0:
                continue
            for kind, flags, sequence, message in split(data):
                if sequence != self._sequence:
                    continue
                interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    _raise_error(kind, message[HEADER.size :], flags)
                    if interrupted:
                        raise DumpInterrupted
                    return
                yield _decode(kind, message)

    def _receive(self) -> tuple[bytes, tuple[int, int]]:
        """Return (datagram, sender's address). Raises OSError ENODATA if no answer is queued."""
        try:
            return self._socket.recvfrom(RECEIVE_BYTES)
        except BlockingIOError:
            raise OSError(errno.ENODATA, "the kernel gave no answer to a request of rtnetlink") from None


def _raise_error(kind: int, body: bytes, flags: int) -> None:
    """Raise OSError if an NLMSG_ERROR or NLMSG_DONE carries an error code. 0 acknowledges."""
    code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
    if code:
        text = error_text(body, flags) if kind == NLMSG_ERROR else ""
        raise OSError(code, f"{os.strerror(code)} ({text})" if text else os.strerror(code))


def _decode(kind: int, data: bytes) -> Message:
    message = _CLASSES[kind](data)
    message.decode()
    return message
