"""Every unary method of the agent's services, passed on as the bytes it came in: nothing here knows a message."""

import base64
from typing import Any, NoReturn

import grpc

from agent.gateway.agent_client import Agent, Failed
from innkeeper.wire import status
from innkeeper.wire.envelope import Request

MAX_BYTES = 64 << 20
"""Requests that are with the agent at one time, all together."""
STATUS_DETAILS = "grpc-status-details-bin"
"""Where gRPC's libraries look for a status's details: a google.rpc.Status in the trailing metadata."""
_LONGEST = (1 << 63) - 1
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_HIDDEN = ("grpc-", ":")
"""Metadata of gRPC itself."""


class Unary:
    """Makes the handlers, and counts what they hold."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._held = 0

    def handler(self, service: str, method: str) -> Any:
        """For grpcio, with neither a decoder nor an encoder."""

        async def pass_on(request: bytes, context: Any) -> bytes:
            return await self._pass_on(Request(service, method, request, nanoseconds(context), metadata(context)), context)

        return grpc.unary_unary_rpc_method_handler(pass_on)

    async def _pass_on(self, request: Request, context: Any) -> bytes:
        size = len(request.payload)
        self._held += size
        try:
            if self._held > MAX_BYTES:
                raise Failed(status.RESOURCE_EXHAUSTED, f"more than {MAX_BYTES} bytes of requests in flight")
            return await self._agent.call(request)
        except Failed as error:
            await abort(context, error)
        finally:
            self._held -= size


async def abort(context: Any, error: Failed) -> NoReturn:
    """End a call with the agent's status. A number that gRPC has no name for becomes UNKNOWN."""
    if error.status:
        context.set_trailing_metadata(((STATUS_DETAILS, error.status),))
    code = _CODES.get(error.code)
    if code is None:
        await context.abort(grpc.StatusCode.UNKNOWN, f"status {error.code}: {error.message}")
    await context.abort(code, error.message)
    raise AssertionError("abort raises")


def nanoseconds(context: Any) -> int:
    """What is left of the call's deadline; 0 without one."""
    left = context.time_remaining()
    return 0 if left is None else min(max(1, int(left * 1e9)), _LONGEST)


def metadata(context: Any) -> list[tuple[str, str]]:
    """What the caller added to its call. Binary values (`-bin`) are written in base64, as they are on gRPC's own wire."""
    return [
        (key, base64.b64encode(value).decode() if isinstance(value, bytes) else value)
        for key, value in context.invocation_metadata()
        if not key.startswith(_HIDDEN) and key != "user-agent"
    ]
