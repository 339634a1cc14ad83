"""The part of route netlink (rtnetlink(7)) that moving an interface needs.

Links and addresses, encoded by struct, one request at a time.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator

NETLINK_ROUTE = 0
RTM_NEWLINK, RTM_NEWADDR, RTM_GETADDR = 16, 20, 22
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE, NLM_F_DUMP = 1, 4, 0x200, 0x400, 0x300
IFF_UP = 1
IFLA_IFNAME, IFLA_NET_NS_FD = 3, 28
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_PERMANENT = 0x80
RT_SCOPE_UNIVERSE = 0
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
Attributes = dict[int, bytes]


class Route:
    """A netlink socket of the caller's network namespace. Use it as a context manager.

    It keeps addressing the namespace in which it was made, also after the caller leaves that.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_ROUTE)
        self._sequence = 0

    def __enter__(self) -> "Route":
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def move_link(self, index: int, namespace: int, name: str) -> None:
        """Take a link down and move it, as `name`, into the network namespace of a descriptor."""
        attributes = {IFLA_NET_NS_FD: struct.pack("=I", namespace), IFLA_IFNAME: os.fsencode(name) + b"\0"}
        self._ask(RTM_NEWLINK, _LINK.pack(0, 0, index, 0, IFF_UP), attributes)

    def bring_up(self, index: int) -> None:
        """Set a link's IFF_UP."""
        self._ask(RTM_NEWLINK, _LINK.pack(0, 0, index, IFF_UP, IFF_UP), {})

    def permanent_addresses(self, index: int) -> list[tuple[bytes, Attributes]]:
        """Return the permanent global addresses of a link: ((family, prefix) as bytes, attributes).

        Permanent (IFA_F_PERMANENT) are those that were configured by hand.
        """
        result = []
        for body in self._ask(RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0), {}, NLM_F_DUMP):
            family, prefix, flags, scope, owner = _ADDRESS.unpack_from(body)
            attributes = _parse(body[_ADDRESS.size :])
            flags |= int.from_bytes(attributes.get(IFA_FLAGS, b""), "little")
            if owner == index and scope == RT_SCOPE_UNIVERSE and flags & IFA_F_PERMANENT:
                kept = {kind: attributes[kind] for kind in (IFA_LOCAL, IFA_ADDRESS, IFA_BROADCAST) if kind in attributes}
                result.append((bytes((family, prefix)), kept))
        return result

    def add_address(self, index: int, kind: bytes, attributes: Attributes) -> None:
        """Add an address, as `permanent_addresses` returned it, to a link."""
        body = _ADDRESS.pack(kind[0], kind[1], IFA_F_PERMANENT, RT_SCOPE_UNIVERSE, index)
        self._ask(RTM_NEWADDR, body, attributes, NLM_F_CREATE | NLM_F_EXCL)

    def _receive(self) -> bytes:
        """Return the next datagram of an answer. Raises OSError (ENODATA) if there is none.

        rtnetlink has queued the answer when send(2) returns. Waiting for a missing one would stop
        PID 1, so this never blocks.
        """
        try:
            return self._socket.recv(1 << 16)
        except BlockingIOError:
            raise OSError(errno.ENODATA, "rtnetlink: the kernel gave no answer") from None

    def _ask(self, kind: int, body: bytes, attributes: Attributes, flags: int = 0) -> list[bytes]:
        """Send one request and return the bodies of its answers.

        Raises OSError with the kernel's errno.
        """
        self._sequence += 1
        payload = body + b"".join([_attribute(number, value) for number, value in attributes.items()])
        flags |= NLM_F_REQUEST | (0 if flags & NLM_F_DUMP == NLM_F_DUMP else NLM_F_ACK)
        self._socket.send(_HEADER.pack(_HEADER.size + len(payload), kind, flags, self._sequence, 0) + payload)
        answers: list[bytes] = []
        while True:
            for number, sequence, answer in _messages(self._receive()):
                if sequence != self._sequence:
                    continue
                if number == NLMSG_DONE:
                    return answers
                if number == NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", answer)
                    if code:
                        raise OSError(-code, f"rtnetlink: {os.strerror(-code)}")
                    return answers
                answers.append(answer)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _parse(data: bytes) -> Attributes:
    result = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            break
        result[kind] = data[4:length]
        data = data[length + 3 & ~3 :]
    return result


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (kind, sequence, body) for each message of one datagram."""
    while len(data) >= _HEADER.size:
        length, kind, _flags, sequence, _port = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            return
        yield kind, sequence, data[_HEADER.size : length]
        data = data[length + 3 & ~3 :]
