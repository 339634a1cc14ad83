"""Parsing IP addresses as they appear in requests.

The functions raise Refused, naming the field of the request.
"""

import socket
from typing import TYPE_CHECKING

from agent.errors import Refused

if TYPE_CHECKING:
    from innkeeper.wire.pb.types_pb2 import IPAddress

V4, V6 = 0, 1
"""types.IPFamily"""
BITS = {socket.AF_INET: 32, socket.AF_INET6: 128}


def wire_family(family: int) -> int:
    """Return the types.IPFamily of an AF_* constant."""
    return V6 if family == socket.AF_INET6 else V4


def parse(field: str, text: str) -> tuple[int, str]:
    """Return (AF_*, canonical text) of an IP address."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        return family, socket.inet_ntop(family, socket.inet_pton(family, text))
    except (OSError, ValueError):
        raise Refused(field, f"{text!r} is no IP address") from None


def parse_prefix_length(field: str, text: str, family: int) -> int:
    """Parse a prefix length, a decimal number of bits that is valid for the family (AF_*)."""
    if not text.isascii() or not text.isdigit() or int(text) > BITS[socket.AddressFamily(family)]:
        raise Refused(field, f"{text!r} is no prefix length")
    return int(text)


def parse_network(field: str, text: str) -> tuple[int, str, int]:
    """Return (AF_*, address, prefix length) of `address/length`.

    An address without a length stands for that host: 32 or 128 bits.
    """
    address, slash, length = text.partition("/")
    family, canonical = parse(field, address)
    bits = BITS[socket.AddressFamily(family)]
    return family, canonical, parse_prefix_length(field, length, family) if slash else bits


def parse_message(field: str, message: "IPAddress") -> tuple[int, str]:
    """Return (AF_*, canonical text) of a types.IPAddress. Its `family` must match the address."""
    family, canonical = parse(f"{field}.address", message.address)
    if wire_family(family) != message.family:
        raise Refused(f"{field}.family", f"is not the family of {message.address}")
    return family, canonical
