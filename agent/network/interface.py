"""The requests UpdateInterface and ListInterfaces."""

import socket
from typing import TYPE_CHECKING, Any

from agent.errors import Refused
from agent.linux.netlink import IFA_F_NODAD, IFF_NOARP, IFF_UP, NLM_F_CREATE, NLM_F_REPLACE, RTM_GETADDR, RTM_NEWADDR, RTM_SETLINK
from agent.network import address as ip
from agent.network.link import (
    IFNAMSIZ,
    LinkMissing,
    by_address,
    by_name,
    check_hardware_address,
    check_name,
    links,
    name_of,
)
from agent.network.netlink import Message, RouteSocket

if TYPE_CHECKING:
    from agent.device.watch import DeviceWatch
    from innkeeper.wire.pb.types_pb2 import Interface

DISABLE_IPV6 = "/proc/sys/net/ipv6/conf/{}/disable_ipv6"
TEMPORARY = "_temp"


async def update_interface(interface: "Interface", devices: "DeviceWatch | None" = None) -> "Interface":
    """Set a link's name, hardware address, MTU, flags and addresses, and bring it up.

    The link is found by `devicePath`, a PCI path that `devices` waits for. Without one it is found
    by `hwAddr`, or else by `name`. Addresses are added, none is removed. Returns `interface`, which
    is the answer to the request.

    Raises Refused for an invalid request, before anything is changed, LinkMissing if there is no
    such link, and OSError with the kernel's message.
    """
    addresses = _checked(interface)
    plugged = await _plugged(interface, devices)
    with RouteSocket() as route:
        link = _find(links(route), interface, plugged)
        _configure(route, link, interface, addresses)
    return interface


def _checked(interface: "Interface") -> list[tuple[int, str, int]]:
    """Check the whole request. Return its addresses as (AF_*, address, prefix length).

    Raises Refused.
    """
    check_name("interface.name", interface.name)
    if interface.hwAddr:
        check_hardware_address("interface.hwAddr", interface.hwAddr)
    if interface.raw_flags & ~IFF_NOARP:
        raise Refused("interface.raw_flags", f"{interface.raw_flags:#x}: only IFF_NOARP ({IFF_NOARP:#x}) can be set")
    if interface.mtu >= 1 << 32:
        raise Refused("interface.mtu", f"{interface.mtu} is too large")
    found = []
    for number, item in enumerate(interface.IPAddresses):
        field = f"interface.IPAddresses[{number}]"
        family, text = ip.parse_message(field, item)
        found.append((family, text, ip.parse_prefix_length(f"{field}.mask", item.mask, family)))
    return found


async def _plugged(interface: "Interface", devices: "DeviceWatch | None") -> str:
    """Return the current name of the link at `devicePath`, or "" if the request has no path.

    Raises LinkMissing if the device does not appear in time.
    """
    if not interface.devicePath:
        return ""
    if devices is None:
        raise Refused("interface.devicePath", "no devices are watched here")
    from agent.device.lookup import net_device

    try:
        return await net_device(devices, interface.devicePath)
    except TimeoutError:
        raise LinkMissing(f"PCI path: {interface.devicePath}") from None


def _find(known: list[Message], interface: "Interface", plugged: str) -> Message:
    """Return the link that a request is about. Raises LinkMissing."""
    if plugged:
        link = by_name(known, plugged)
    else:
        link = (by_address(known, interface.hwAddr) if interface.hwAddr else None) or by_name(known, interface.name)
    if link is None:
        raise LinkMissing(f"Address: {interface.hwAddr}, Name: {interface.name}")
    return link


def _configure(route: RouteSocket, link: Message, interface: "Interface", addresses: list[tuple[int, str, int]]) -> None:
    """Set the link down, change it and set it up.

    The link has to be down for some of the changes. If one fails, a link that was up before is set
    up again.
    """
    was_up = link["flags"] & IFF_UP
    _set_flags(route, link, 0, IFF_UP)
    try:
        if interface.hwAddr and str(link.get_attr("IFLA_ADDRESS")).lower() != interface.hwAddr.lower():
            _set(route, link, [("IFLA_ADDRESS", interface.hwAddr.lower())])
        _rename(route, link, interface.name)
        if interface.mtu:
            _set(route, link, [("IFLA_MTU", interface.mtu)])
        _add_addresses(route, link, addresses)
        was_up = 1
    finally:
        if was_up:
            _set_flags(route, link, IFF_UP | interface.raw_flags, IFF_UP | IFF_NOARP)


def _set(route: RouteSocket, link: Message, attrs: list[tuple[str, Any]]) -> None:
    route.change(RTM_SETLINK, {"index": link["index"]}, attrs, subject=name_of(link))


def _set_flags(route: RouteSocket, link: Message, flags: int, change: int) -> None:
    fields = {"index": link["index"], "flags": flags, "change": change}
    route.change(RTM_SETLINK, fields, subject=name_of(link))


def _add_addresses(route: RouteSocket, link: Message, addresses: list[tuple[int, str, int]]) -> None:
    """Add addresses to a link.

    IPv6 addresses are skipped if IPv6 is disabled in this kernel. The host does not know that, and
    its request should not fail for it. They are usable at once: the host has given them to the pod,
    and has looked for duplicates (RFC 4862, 5.4) where it did so.
    """
    for family, text, length in addresses:
        if family == socket.AF_INET6 and _ipv6_is_off():
            continue
        flags = IFA_F_NODAD if family == socket.AF_INET6 else 0
        fields = {"family": family, "prefixlen": length, "flags": flags, "index": link["index"]}
        attrs = [("IFA_ADDRESS", text)] if family == socket.AF_INET6 else [("IFA_LOCAL", text), ("IFA_ADDRESS", text)]
        route.change(RTM_NEWADDR, fields, attrs, flags=NLM_F_CREATE | NLM_F_REPLACE, subject=f"{text}/{length}")


def _ipv6_is_off() -> bool:
    """Return whether IPv6 is missing in the kernel or disabled for both `all` and `default`."""
    for scope in ("all", "default"):
        try:
            with open(DISABLE_IPV6.format(scope)) as file:
                if file.read().strip() == "0":
                    return False
        except FileNotFoundError:
            return True
    return True


def _rename(route: RouteSocket, link: Message, wanted: str) -> None:
    """Rename `link` to `wanted`. If another link has that name, the two exchange their names.

    Names are unique, so the other link gets a temporary name in between.
    """
    old = name_of(link)
    if old == wanted:
        return
    other = by_name(links(route), wanted)
    if other is None:
        _set(route, link, [("IFLA_IFNAME", wanted)])
        return
    other_was_up = other["flags"] & IFF_UP
    _set_flags(route, other, 0, IFF_UP)
    _set(route, other, [("IFLA_IFNAME", wanted[: IFNAMSIZ - 1 - len(TEMPORARY)] + TEMPORARY)])
    _set(route, link, [("IFLA_IFNAME", wanted)])
    _set(route, other, [("IFLA_IFNAME", old)])
    if other_was_up:
        _set_flags(route, other, IFF_UP, IFF_UP)


def list_interfaces() -> "list[Interface]":
    """Return every link with its addresses."""
    from innkeeper.wire.pb.types_pb2 import Interface, IPAddress

    with RouteSocket() as route:
        known = links(route)
        addresses = route.dump(RTM_GETADDR, {})
    found = []
    for link in known:
        name = name_of(link)
        information = link.get_attr("IFLA_LINKINFO")
        interface = Interface(
            device=name,
            name=name,
            mtu=link.get_attr("IFLA_MTU") or 0,
            hwAddr=link.get_attr("IFLA_ADDRESS") or "",
            type=(information.get_attr("IFLA_INFO_KIND") if information else None) or "",
            raw_flags=link["flags"] & IFF_NOARP,
        )
        for item in addresses:
            if item["index"] == link["index"]:
                text = item.get_attr("IFA_LOCAL") or item.get_attr("IFA_ADDRESS")
                family = "v6" if item["family"] == socket.AF_INET6 else "v4"
                interface.IPAddresses.append(IPAddress(family=family, address=text, mask=str(item["prefixlen"])))
        found.append(interface)
    return found
