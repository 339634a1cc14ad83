"""Finding network links by name and by hardware address."""

from collections.abc import Iterable

from agent.errors import AgentError, Refused
from agent.linux.netlink import RTM_GETLINK
from agent.network.netlink import Message, RouteSocket

IFNAMSIZ = 16


class LinkMissing(AgentError):
    """A link does not exist, or does not exist yet.

    Kata's shim retries the request if the message contains `Link not found`.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"Link not found ({what})")


def links(route: RouteSocket) -> list[Message]:
    """Return every link of this network namespace."""
    return route.dump(RTM_GETLINK, {})


def name_of(link: Message) -> str:
    """Return the name of a link."""
    return str(link.get_attr("IFLA_IFNAME"))


def by_name(known: Iterable[Message], name: str) -> Message | None:
    """Return the link called `name`, or None."""
    return next((link for link in known if name_of(link) == name), None)


def by_address(known: Iterable[Message], address: str) -> Message | None:
    """Return the link with this hardware address (in upper or lower case), or None."""
    wanted = address.lower()
    return next((link for link in known if str(link.get_attr("IFLA_ADDRESS")).lower() == wanted), None)


def index_of(known: Iterable[Message], name: str) -> int:
    """Return the index of the link called `name`. Raises LinkMissing."""
    link = by_name(known, name)
    if link is None:
        raise LinkMissing(f"Name: {name}")
    return int(link["index"])


def check_name(field: str, name: str) -> None:
    """Raise Refused for a name that the kernel would not accept, before anything is changed."""
    encoded = name.encode()
    if not 0 < len(encoded) < IFNAMSIZ or name in (".", "..") or any(c in "/:" or c.isspace() or c == "\0" for c in name):
        raise Refused(field, f"{name!r} is no name for a network interface")


HARDWARE_BYTES = 6


def check_hardware_address(field: str, address: str) -> None:
    """Raise Refused for anything but six hexadecimal bytes separated by colons."""
    parts = address.split(":")
    if len(parts) != HARDWARE_BYTES or not all(len(part) == 2 and _is_hexadecimal(part) for part in parts):
        raise Refused(field, f"{address!r} is no hardware address")


def _is_hexadecimal(text: str) -> bool:
    return all(c in "0123456789abcdefABCDEF" for c in text)
