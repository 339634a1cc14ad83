"""The requests UpdateRoutes and ListRoutes, for the main routing table."""

import errno
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agent.errors import Refused
from agent.linux.netlink import NLM_F_CREATE, NLM_F_REPLACE, RTM_GETROUTE, RTM_NEWROUTE
from agent.network import address as ip
from agent.network.link import index_of, links, name_of
from agent.network.netlink import Message, RouteSocket

if TYPE_CHECKING:
    from innkeeper.wire.pb.types_pb2 import Route

RT_TABLE_MAIN, RTPROT_BOOT, RTN_UNICAST = 254, 3, 1
RTM_F_CLONED = 0x200
RTNH_FLAGS = 0x1 | 0x2 | 0x4
"""RTNH_F_DEAD, _PERVASIVE, _ONLINK"""

Request = tuple[str, dict[str, Any], list[tuple[str, Any]]]
"""(Name of the route in an error, fixed fields, attributes)."""


def update_routes(routes: "Sequence[Route]") -> "list[Route]":
    """Add or replace `routes` and return the main table. No route is removed.

    Routes without a gateway are added first, because the kernel refuses a gateway that is not yet
    reachable. An empty `dest` is the default route, and `source` is the preferred source address.
    A route that already exists is no error.

    Raises Refused and LinkMissing before anything is changed. Raises OSError with the kernel's
    message.
    """
    with RouteSocket() as route:
        known = links(route)
        requests = [_request(f"routes[{number}]", item, known) for number, item in enumerate(routes)]
        requests.sort(key=lambda request: any(name == "RTA_GATEWAY" for name, _ in request[2]))
        for subject, fields, attrs in requests:
            try:
                route.change(RTM_NEWROUTE, fields, attrs, flags=NLM_F_CREATE | NLM_F_REPLACE, subject=subject)
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
    return list_routes()


def _request(field: str, route: "Route", known: list[Message]) -> Request:
    """Check a route and return the request that adds it. Raises Refused and LinkMissing."""
    family = socket.AF_INET6 if route.family == ip.V6 else socket.AF_INET
    length = 0
    attrs: list[tuple[str, Any]] = []
    if route.dest:
        found, text, length = ip.parse_network(f"{field}.dest", route.dest)
        _same_family(f"{field}.dest", found, family)
        if length:
            attrs.append(("RTA_DST", text))
    for name, value, attribute in (("gateway", route.gateway, "RTA_GATEWAY"), ("source", route.source, "RTA_PREFSRC")):
        if value:
            found, text = ip.parse(f"{field}.{name}", value)
            _same_family(f"{field}.{name}", found, family)
            attrs.append((attribute, text))
    if route.device:
        attrs.append(("RTA_OIF", index_of(known, route.device)))
    if route.mtu:
        attrs.append(("RTA_METRICS", {"attrs": [("RTAX_MTU", route.mtu)]}))
    if route.scope > 255:
        raise Refused(f"{field}.scope", f"{route.scope} is no scope")
    fields = {
        "family": family,
        "dst_len": length,
        "table": RT_TABLE_MAIN,
        "proto": RTPROT_BOOT,
        "type": RTN_UNICAST,
        "scope": route.scope,
        "flags": route.flags,
    }
    return f"route {route.dest or 'default'}", fields, attrs


def _same_family(field: str, found: int, family: int) -> None:
    if found != family:
        raise Refused(field, "is not of the route's family")


def list_routes() -> "list[Route]":
    """Return the main table, IPv4 routes before IPv6 routes.

    A default route has an empty `dest`. For a route with several next hops the first is shown.
    Cached routes (RTM_F_CLONED) are left out.
    """
    found = []
    with RouteSocket() as route:
        names = {link["index"]: name_of(link) for link in links(route)}
        for family in (socket.AF_INET, socket.AF_INET6):
            for item in route.dump(RTM_GETROUTE, {"family": family}):
                if item.get_attr("RTA_TABLE") == RT_TABLE_MAIN and not item["flags"] & RTM_F_CLONED:
                    found.append(_shown(item, names))
    return found


def _shown(item: Message, names: dict[int, str]) -> "Route":
    """Return a route of the kernel as a types.Route. `names` maps link index -> name."""
    from innkeeper.wire.pb.types_pb2 import Route

    hops = item.get_attr("RTA_MULTIPATH")
    hop = hops[0] if hops else item
    metrics = item.get_attr("RTA_METRICS")
    destination = item.get_attr("RTA_DST")
    return Route(
        dest=f"{destination}/{item['dst_len']}" if destination else "",
        gateway=hop.get_attr("RTA_GATEWAY") or "",
        device=names.get(hops[0]["oif"] if hops else item.get_attr("RTA_OIF"), ""),
        source=item.get_attr("RTA_PREFSRC") or "",
        scope=item["scope"],
        family="v6" if item["family"] == socket.AF_INET6 else "v4",
        flags=item["flags"] & RTNH_FLAGS,
        mtu=(metrics.get_attr("RTAX_MTU") if metrics else None) or 0,
    )
