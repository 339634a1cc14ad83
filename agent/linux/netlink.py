"""NETLINK_ROUTE sockets (netlink(7), rtnetlink(7)): one request at a time, with its answers.

The kernel processes a request inside send(2). Its answer is queued when the call returns, so no
task ever waits for one. If an answer is missing nevertheless, an error is raised: a receive that
blocks would stop PID 1.

`agent.network.netlink` encodes the many messages of Kata's requests by pyroute2. The few that
moving an interface needs are encoded here by struct: that is done beside the fork of a container,
also by the runtime command, and neither has pyroute2 loaded.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Self

RTM_NEWLINK, RTM_GETLINK, RTM_SETLINK = 16, 18, 19
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWNEIGH = 28

NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_DUMP_INTR = 0x10
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLMSGERR_ATTR_MSG = 1
SOL_NETLINK = 270
NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 10, 11, 12
IFF_UP, IFF_NOARP = 0x1, 0x80
IFLA_IFNAME, IFLA_NET_NS_FD = 3, 28
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD, IFA_F_PERMANENT = 0x02, 0x80
RT_SCOPE_UNIVERSE = 0
HEADER = struct.Struct("=IHHII")
RECEIVE_BYTES = 256 * 1024
DUMP_TRIES = 5
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
Attributes = dict[int, bytes]


class NetlinkSocket:
    """A netlink socket of the caller's network namespace. Use it as a context manager.

    It keeps addressing the namespace in which it was made, also after the caller leaves that.
    """

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def request(self, kind: int, body: bytes, flags: int = 0) -> list[tuple[int, bytes]]:
        """Send one request and return its answers as (type, whole message).

        The kernel marks a dump that a change has interrupted (NLM_F_DUMP_INTR). The table is then
        read again, up to DUMP_TRIES times. Raises OSError with the kernel's message.
        """
        flags |= NLM_F_REQUEST | (0 if flags & NLM_F_DUMP == NLM_F_DUMP else NLM_F_ACK)
        for _ in range(DUMP_TRIES):
            self._sequence += 1
            self._socket.sendto(HEADER.pack(HEADER.size + len(body), kind, flags, self._sequence, 0) + body, (0, 0))
            answers = self._answers()
            if answers is not None:
                return answers
        raise OSError(errno.EINTR, "the table kept changing while it was read")

    def _answers(self) -> list[tuple[int, bytes]] | None:
        """Return the answers to the last request, or None if they are inconsistent.

        Messages of an earlier answer that was not read to its end are skipped, by their sequence
        number. Messages that do not come from the kernel (port 0) are skipped too.
        """
        answers: list[tuple[int, bytes]] = []
        interrupted = False
        while True:
            try:
                data, sender = self._socket.recvfrom(RECEIVE_BYTES)
            except BlockingIOError:
                raise OSError(errno.ENODATA, "the kernel gave no answer to a request of rtnetlink") from None
            if sender[0] != 0:
                continue
            for kind, flags, sequence, message in split(data):
                if sequence != self._sequence:
                    continue
                interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    _raise_error(kind, message[HEADER.size :], flags)
                    return None if interrupted else answers
                answers.append((kind, message))


class LinkSocket(NetlinkSocket):
    """The requests that moving an interface into another network namespace takes."""

    def move_link(self, index: int, namespace: int, name: str) -> None:
        """Take a link down and move it, as `name`, into the network namespace of a descriptor."""
        attributes = {IFLA_NET_NS_FD: struct.pack("=I", namespace), IFLA_IFNAME: os.fsencode(name) + b"\0"}
        self.request(RTM_NEWLINK, _LINK.pack(0, 0, index, 0, IFF_UP) + _encoded(attributes))

    def bring_up(self, index: int) -> None:
        """Set a link's IFF_UP."""
        self.request(RTM_NEWLINK, _LINK.pack(0, 0, index, IFF_UP, IFF_UP))

    def permanent_addresses(self, index: int) -> list[tuple[bytes, Attributes]]:
        """Return the permanent global addresses of a link: ((family, prefix) as bytes, attributes).

        Permanent (IFA_F_PERMANENT) are those that were configured by hand.
        """
        result = []
        for _, message in self.request(RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0), NLM_F_DUMP):
            family, prefix, flags, scope, owner = _ADDRESS.unpack_from(message, HEADER.size)
            attributes = dict(parse_attributes(message[HEADER.size + _ADDRESS.size :]))
            flags |= int.from_bytes(attributes.get(IFA_FLAGS, b""), "little")
            if owner == index and scope == RT_SCOPE_UNIVERSE and flags & IFA_F_PERMANENT:
                kept = {kind: attributes[kind] for kind in (IFA_LOCAL, IFA_ADDRESS, IFA_BROADCAST) if kind in attributes}
                result.append((bytes((family, prefix)), kept))
        return result

    def add_address(self, index: int, kind: bytes, attributes: Attributes) -> None:
        """Add an address, as `permanent_addresses` returned it, to a link."""
        body = _ADDRESS.pack(kind[0], kind[1], IFA_F_PERMANENT, RT_SCOPE_UNIVERSE, index)
        self.request(RTM_NEWADDR, body + _encoded(attributes), NLM_F_CREATE | NLM_F_EXCL)


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


def error_text(body: bytes, flags: int) -> str:
    """Return the kernel's message in an NLMSG_ERROR (NLMSGERR_ATTR_MSG), or "" if it has none.

    `body` is the message without its header.
    """
    if not flags & NLM_F_ACK_TLVS:
        return ""
    offset = 4 + (HEADER.size if flags & NLM_F_CAPPED else _aligned(struct.unpack_from("=I", body, 4)[0]))
    text = next((value for kind, value in parse_attributes(body[offset:]) if kind & 0x3FFF == NLMSGERR_ATTR_MSG), b"")
    return text.rstrip(b"\0").decode(errors="replace")


def _raise_error(kind: int, body: bytes, flags: int) -> None:
    """Raise OSError if an NLMSG_ERROR or NLMSG_DONE carries an error code. 0 acknowledges."""
    code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
    if code:
        text = error_text(body, flags) if kind == NLMSG_ERROR else ""
        raise OSError(code, f"{os.strerror(code)} ({text})" if text else os.strerror(code))


def parse_attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type, value) for each attribute (`struct rtattr`). Stops at a malformed one."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind, data[4:length]
        data = data[_aligned(length) :]


def _encoded(attributes: Attributes) -> bytes:
    return b"".join([struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4) for kind, value in attributes.items()])


def _aligned(length: int) -> int:
    return (length + 3) & ~3
