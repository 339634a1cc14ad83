"""UpdateInterface and ListInterfaces."""

import socket
from typing import TYPE_CHECKING, Any

from agent.errors import Refused
from agent.network import address as ip
from agent.network.link import (
    IFF_NOARP,
    IFF_UP,
    IFNAMSIZ,
    LinkMissing,
    by_address,
    by_name,
    check_hardware_address,
    check_name,
    links,
    name_of,
)
from agent.network.netlink import NLM_F_CREATE, NLM_F_REPLACE, RTM_GETADDR, RTM_NEWADDR, RTM_SETLINK, Message, RouteSocket

if TYPE_CHECKING:
    from agent.device.watch import DeviceWatch
    from innkeeper.wire.pb.types_pb2 import Interface

DISABLE_IPV6 = "/proc/sys/net/ipv6/conf/{}/disable_ipv6"
TEMPORARY = "_temp"


async def update_interface(interface: "Interface", devices: "DeviceWatch | None" = None) -> "Interface":
    """Give the link that `interface` means its name, addresses, MTU and flags, and bring it up; answers the request.

    The link is the one at `devicePath` (a PCI path; waited for with `devices`), else the one with `hwAddr`, else the one called
    `name`. Addresses are added, none is removed. LinkMissing if there is no such link; Refused before anything is changed.
    """
    addresses = _checked(interface)
    plugged = await _plugged(interface, devices)
    with RouteSocket() as route:
        link = _find(links(route), interface, plugged)
        _configure(route, link, interface, addresses)
    return interface


def _checked(interface: "Interface") -> list[tuple[int, str, int]]:
    """The addresses as (family, address, prefix length), everything in the request having been looked at."""
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
    """The present name of the link at `devicePath`, or an empty string."""
    if not interface.devicePath:
        return ""
    if devices is None:
        raise Refused("interface.devicePath", "no devices are watched here")
    from agent.device.net import net_device

    try:
        return await net_device(devices, interface.devicePath)
    except TimeoutError:
        raise LinkMissing(f"PCI path: {interface.devicePath}") from None


def _find(known: list[Message], interface: "Interface", plugged: str) -> Message:
    if plugged:
        link = by_name(known, plugged)
    else:
        link = (by_address(known, interface.hwAddr) if interface.hwAddr else None) or by_name(known, interface.name)
    if link is None:
        raise LinkMissing(f"Address: {interface.hwAddr}, Name: {interface.name}")
    return link


def _configure(route: RouteSocket, link: Message, interface: "Interface", addresses: list[tuple[int, str, int]]) -> None:
    """Down, change, up. A link that was up comes up again whatever fails."""
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
    """IPv6 is left out where the kernel has it switched off altogether, as the host does not know."""
    for family, text, length in addresses:
        if family == socket.AF_INET6 and _ipv6_is_off():
            continue
        fields = {"family": family, "prefixlen": length, "index": link["index"]}
        attrs = [("IFA_ADDRESS", text)] if family == socket.AF_INET6 else [("IFA_LOCAL", text), ("IFA_ADDRESS", text)]
        route.change(RTM_NEWADDR, fields, attrs, flags=NLM_F_CREATE | NLM_F_REPLACE, subject=f"{text}/{length}")


def _ipv6_is_off() -> bool:
    for scope in ("all", "default"):
        try:
            with open(DISABLE_IPV6.format(scope)) as file:
                if file.read().strip() == "0":
                    return False
        except FileNotFoundError:
            return True
    return True


def _rename(route: RouteSocket, link: Message, wanted: str) -> None:
    """Call `link` `wanted`. Another link of that name takes this one's old name in exchange."""
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
    """Every link with its addresses."""
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
