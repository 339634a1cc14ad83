"""grpc.health.v1.Health, the standard service.

SERVING means that the agent has just answered its own Check.
"""

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from agent.gateway.agent_client import Agent, Failed
from agent.gateway.unary import abort
from innkeeper.wire.envelope import Request


class Health(health.aio.HealthServicer):  # type: ignore[misc]  # grpcio-health-checking has no types
    """The service. Check asks the agent.

    Watch reports SERVING and nothing else: when the agent ends, so does the connection.
    """

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self._agent = agent

    async def Check(self, request: Any, context: Any) -> Any:
        """Return the agent's own response, which has the same layout."""
        if request.service not in self._server_status:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"service {request.service!r} is not served here")
        try:
            return health_pb2.HealthCheckResponse.FromString(await self._agent.call(Request("grpc.Health", "Check")))
        except Failed as error:
            await abort(context, error)
