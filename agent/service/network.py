"""Handlers of the calls about interfaces, routes and neighbours.

The first of these calls imports the netlink code.
"""

from typing import TYPE_CHECKING

from innkeeper.wire.pb.agent_pb2 import Interfaces, Routes
from innkeeper.wire.pb.empty_pb2 import Empty

if TYPE_CHECKING:
    from agent.sandbox import Sandbox
    from agent.service.dispatcher import Handlers
    from innkeeper.wire.pb import agent_pb2, types_pb2


async def update_interface(sandbox: "Sandbox", request: "agent_pb2.UpdateInterfaceRequest") -> "types_pb2.Interface":
    """Configure an interface, and wait for it to appear if necessary."""
    from agent.network.interface import update_interface

    return await update_interface(request.interface, sandbox.devices)


async def update_routes(sandbox: "Sandbox", request: "agent_pb2.UpdateRoutesRequest") -> Routes:
    """Add or replace routes, and return the routes of the guest."""
    from agent.network.route import update_routes

    return Routes(Routes=update_routes(request.routes.Routes))


async def list_interfaces(sandbox: "Sandbox", request: "agent_pb2.ListInterfacesRequest") -> Interfaces:
    """Return the interfaces of the guest."""
    from agent.network.interface import list_interfaces

    return Interfaces(Interfaces=list_interfaces())


async def list_routes(sandbox: "Sandbox", request: "agent_pb2.ListRoutesRequest") -> Routes:
    """Return the routes of the guest."""
    from agent.network.route import list_routes

    return Routes(Routes=list_routes())


async def add_arp_neighbors(sandbox: "Sandbox", request: "agent_pb2.AddARPNeighborsRequest") -> Empty:
    """Add or replace entries of the neighbour tables."""
    from agent.network.neighbour import add_arp_neighbors

    add_arp_neighbors(request.neighbors.ARPNeighbors)
    return Empty()


METHODS: "Handlers" = {
    "UpdateInterface": update_interface,
    "UpdateRoutes": update_routes,
    "ListInterfaces": list_interfaces,
    "ListRoutes": list_routes,
    "AddARPNeighbors": add_arp_neighbors,
}
