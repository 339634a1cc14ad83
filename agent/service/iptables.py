"""Handlers that read and replace the guest's packet filter, with iptables-save and -restore."""

from typing import TYPE_CHECKING

from agent.errors import Refused
from agent.storage.guest_program import run_program
from innkeeper.wire.pb.agent_pb2 import GetIPTablesResponse, SetIPTablesResponse

if TYPE_CHECKING:
    from agent.sandbox import Sandbox
    from agent.service.dispatcher import Handlers
    from innkeeper.wire.pb import agent_pb2


def _program(is_ipv6: bool, verb: str) -> str:
    return f"{'ip6tables' if is_ipv6 else 'iptables'}-{verb}"


async def get_ip_tables(sandbox: "Sandbox", request: "agent_pb2.GetIPTablesRequest") -> GetIPTablesResponse:
    """Return all tables in the format of iptables-save(8)."""
    return GetIPTablesResponse(data=await run_program(_program(request.is_ipv6, "save"), (), field="is_ipv6"))


async def set_ip_tables(sandbox: "Sandbox", request: "agent_pb2.SetIPTablesRequest") -> SetIPTablesResponse:
    """Replace the tables that `data` lists, each of them atomically (iptables-restore(8)).

    The answer holds the output of the program. Raises Refused if `data` is empty.
    """
    if not request.data.strip():
        raise Refused("data", "is empty")
    program = _program(request.is_ipv6, "restore")
    return SetIPTablesResponse(data=await run_program(program, ("--wait", "10"), request.data, field="is_ipv6"))


METHODS: "Handlers" = {
    "GetIPTables": get_ip_tables,
    "SetIPTables": set_ip_tables,
}
