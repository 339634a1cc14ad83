"""Unary methods of the agent's services.

Requests and responses are passed on as bytes, so no message type is known here.
"""

import base64
from typing import Any, NoReturn

import grpc

from agent.gateway.agent_client import Agent, Failed
from innkeeper.wire import status
from innkeeper.wire.envelope import Request

MAX_BYTES = 64 << 20
"""Total bytes of the requests that the agent is working on at one time."""
STATUS_DETAILS = "grpc-status-details-bin"
"""Key of the trailing metadata in which gRPC libraries look for the details of a status.

The value is a serialized google.rpc.Status.
"""
_LONGEST = (1 << 63) - 1
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_HIDDEN = ("grpc-", ":")
"""Prefixes of gRPC's own metadata, which is not passed on."""


class Unary:
    """Makes the handlers, and counts the bytes of their requests."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._held = 0

    def handler(self, service: str, method: str) -> Any:
        """Return a handler for grpcio that neither decodes nor encodes."""

        async def pass_on(request: bytes, context: Any) -> bytes:
            return await self._pass_on(Request(service, method, request, nanoseconds(context), metadata(context)), context)

        return grpc.unary_unary_rpc_method_handler(pass_on)

    async def _pass_on(self, request: Request, context: Any) -> bytes:
        """Call the agent and return the payload. Ends the call with a status if that fails."""
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
    """End a call with the agent's status.

    A status code that gRPC has no name for becomes UNKNOWN.
    """
    if error.status:
        context.set_trailing_metadata(((STATUS_DETAILS, error.status),))
    code = _CODES.get(error.code)
    if code is None:
        await context.abort(grpc.StatusCode.UNKNOWN, f"status {error.code}: {error.message}")
    await context.abort(code, error.message)
    raise AssertionError("abort raises")


def nanoseconds(context: Any) -> int:
    """Return the time that is left until the deadline of the call, or 0 if it has none.

    A deadline that has passed gives 1, because 0 would mean no deadline.
    """
    left = context.time_remaining()
    return 0 if left is None else min(max(1, int(left * 1e9)), _LONGEST)


def metadata(context: Any) -> list[tuple[str, str]]:
    """Return the metadata that the caller added to the call.

    Binary values (`-bin`) are in base64, as on the wire of gRPC.
    """
    return [
        (key, base64.b64encode(value).decode() if isinstance(value, bytes) else value)
        for key, value in context.invocation_metadata()
        if not key.startswith(_HIDDEN) and key != "user-agent"
    ]
