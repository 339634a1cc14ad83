"""The request AddARPNeighbors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.errors import Refused
from agent.linux.netlink import NLM_F_CREATE, NLM_F_REPLACE, RTM_NEWNEIGH
from agent.network import address as ip
from agent.network.link import check_hardware_address, index_of, links
from agent.network.netlink import RouteSocket

if TYPE_CHECKING:
    from innkeeper.wire.pb.types_pb2 import ARPNeighbor

NUD_PERMANENT = 0x80


def add_arp_neighbors(neighbours: "Sequence[ARPNeighbor]") -> None:
    """Add or replace entries of the neighbour tables. `state` 0 makes an entry permanent.

    Raises Refused for an invalid entry, LinkMissing for an unknown device, and OSError. The entries
    before it have then been added.
    """
    with RouteSocket() as route:
        known = links(route)
        for number, item in enumerate(neighbours):
            field = f"neighbors[{number}]"
            family, text = ip.parse_message(f"{field}.toIPAddress", item.toIPAddress)
            check_hardware_address(f"{field}.lladdr", item.lladdr)
            if not 0 <= item.state < 1 << 16 or not 0 <= item.flags < 1 << 8:
                raise Refused(f"{field}.state", f"{item.state} with flags {item.flags} is no neighbour's state")
            fields = {
                "family": family,
                "ifindex": index_of(known, item.device),
                "state": item.state or NUD_PERMANENT,
                "flags": item.flags,
            }
            attrs = [("NDA_DST", text), ("NDA_LLADDR", item.lladdr.lower())]
            route.change(RTM_NEWNEIGH, fields, attrs, flags=NLM_F_CREATE | NLM_F_REPLACE, subject=text)
