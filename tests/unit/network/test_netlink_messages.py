"""Requests as bytes, answers from bytes, and what is imported for them."""

import errno
import socket
import struct
import subprocess
import sys
from typing import Any

import pytest

from agent.errors import Refused
from agent.network import address, link
from tests.needs import needs

pytestmark = needs("module:pyroute2")


def attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def encode(*arguments: Any) -> bytes:
    from agent.network.netlink import encode as encode_

    return encode_(*arguments)


def test_set_link() -> None:
    body = struct.pack("=BxHiII", 0, 0, 7, 1, 1) + attribute(4, struct.pack("=I", 1400)) + attribute(3, b"eth0\0")
    fields = {"index": 7, "flags": 1, "change": 1}
    assert encode(19, 4, 42, fields, [("IFLA_MTU", 1400), ("IFLA_IFNAME", "eth0")]) == message(19, 5, 42, body)


def test_hardware_address() -> None:
    body = struct.pack("=BxHiII", 0, 0, 7, 0, 0) + attribute(1, bytes.fromhex("02000000000a"))
    assert encode(19, 4, 1, {"index": 7}, [("IFLA_ADDRESS", "02:00:00:00:00:0a")]) == message(19, 5, 1, body)


def test_new_address() -> None:
    body = struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, 7) + attribute(2, bytes([10, 0, 0, 1])) + attribute(1, bytes([10, 0, 0, 1]))
    fields = {"family": socket.AF_INET, "prefixlen": 24, "index": 7}
    assert encode(20, 0x504, 1, fields, [("IFA_LOCAL", "10.0.0.1"), ("IFA_ADDRESS", "10.0.0.1")]) == message(20, 0x505, 1, body)


def test_new_route() -> None:
    fixed = struct.pack("=8BI", socket.AF_INET6, 64, 0, 0, 254, 3, 0, 1, 4)
    metrics = attribute(8, attribute(2, struct.pack("=I", 1300)))
    body = fixed + attribute(1, socket.inet_pton(socket.AF_INET6, "fd00::")) + attribute(4, struct.pack("=I", 7)) + metrics
    fields = {"family": socket.AF_INET6, "dst_len": 64, "table": 254, "proto": 3, "type": 1, "scope": 0, "flags": 4}
    attrs = [("RTA_DST", "fd00::"), ("RTA_OIF", 7), ("RTA_METRICS", {"attrs": [("RTAX_MTU", 1300)]})]
    assert encode(24, 0x504, 9, fields, attrs) == message(24, 0x505, 9, body)


def test_new_neighbour() -> None:
    body = struct.pack("=BxHiHBB", socket.AF_INET, 0, 7, 0x80, 0, 0) + attribute(1, bytes([10, 0, 0, 7])) + attribute(2, b"\xaa" * 6)
    fields = {"family": socket.AF_INET, "ifindex": 7, "state": 0x80, "flags": 0}
    assert encode(28, 0x504, 1, fields, [("NDA_DST", "10.0.0.7"), ("NDA_LLADDR", ":".join(["aa"] * 6))]) == message(28, 0x505, 1, body)


def test_the_kernels_text_of_an_error() -> None:
    from agent.linux.netlink import error_text

    text = attribute(1, b"Invalid gateway\0")
    request = message(24, 5, 1, b"x" * 12)
    assert error_text(struct.pack("=i", -22) + request[:16] + attribute(2, b"1234") + text, 0x300) == "Invalid gateway"
    assert error_text(struct.pack("=i", -22) + request + text, 0x200) == "Invalid gateway"
    assert error_text(struct.pack("=i", -22) + request, 0) == ""
    assert error_text(struct.pack("=i", -22) + request[:16] + b"\0\0\0\0", 0x300) == ""


def test_split() -> None:
    from agent.linux.netlink import split

    first, second = message(16, 2, 1, b"abc") + b"\0", message(3, 2, 1, bytes(4))
    assert [item[:3] for item in split(first + second)] == [(16, 2, 1), (3, 2, 1)]
    for broken in (first[:10], first[:18], struct.pack("=IHHII", 4, 0, 0, 0, 0)):
        with pytest.raises(ValueError, match="netlink datagram ends"):
            list(split(broken))


@pytest.mark.parametrize("name", ["", "sixteen-letters-", "a/b", "a:b", "a b", ".", "..", "a\0b", "ééééééé" * 2])
def test_names_the_kernel_does_not_take(name: str) -> None:
    with pytest.raises(Refused):
        link.check_name("name", name)


def test_networks() -> None:
    assert address.parse_network("f", "10.1.0.0/16") == (socket.AF_INET, "10.1.0.0", 16)
    assert address.parse_network("f", "FD00:0::/64") == (socket.AF_INET6, "fd00::", 64)
    assert address.parse_network("f", "10.1.0.9") == (socket.AF_INET, "10.1.0.9", 32)
    for wrong in ("10.1/16", "10.1.0.0/", "10.1.0.0/-1", "10.1.0.0/33", "fd00::/129", "x", "10.1.0.0/²", "10.0.0.1\0"):
        with pytest.raises(Refused):
            address.parse_network("f", wrong)


def test_the_library_is_not_loaded_for_its_messages() -> None:
    script = (
        "import sys, agent.network.netlink\n"
        "heavy = {'asyncio', 'sqlite3', 'ssl', 'subprocess', 'pyroute2.iproute', 'pyroute2.ndb'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_loopback_needs_no_netlink_code() -> None:
    script = (
        "import sys; before = set(sys.modules); import agent.linux.loopback\n"
        "new = {name for name in set(sys.modules) - before if not name.startswith('agent')}\n"
        "assert new <= {'_socket', 'fcntl', 'struct', '_struct'}, new\n"
    )
    subprocess.run([sys.executable, "-S", "-c", script], check=True)


def test_an_answer_that_does_not_come_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel answers inside send(2). A request that it never got must not keep PID 1 waiting."""
    from agent.linux.netlink import RTM_GETLINK, RTM_NEWLINK, LinkSocket
    from agent.network import netlink

    class Deaf(socket.socket):
        def send(self, data: bytes, *flags: int) -> int:  # type: ignore[override]
            return len(data)

        def sendto(self, data: bytes, *rest: object) -> int:  # type: ignore[override]
            return len(data)

    monkeypatch.setattr(socket, "socket", Deaf)
    with netlink.RouteSocket() as route, pytest.raises(OSError, match="no answer") as caught:
        route.change(RTM_NEWLINK, {"index": 1})
    assert caught.value.errno == errno.ENODATA
    with netlink.RouteSocket() as route, pytest.raises(OSError, match="no answer"):
        route.dump(RTM_GETLINK, {})
    with LinkSocket() as other, pytest.raises(OSError, match="no answer"):
        other.bring_up(1)
