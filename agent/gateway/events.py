"""Guest.Events: the numbered events of the agent as one gRPC stream.

The agent keeps no record of the clients that follow them.
"""

from typing import Any

from google.protobuf.message import DecodeError

from agent.gateway.agent_client import Agent, Failed
from innkeeper.wire import status
from innkeeper.wire.pb.guest_pb2 import EventsRequest, NextEventsRequest, NextEventsResponse

_GUEST = "innkeeper.v1.Guest"


async def events(agent: Agent, request: bytes, context: Any) -> None:
    """Serve one call until it is cancelled. Raises Failed.

    Without `after`, the stream begins with the first event after the call. The number of the last
    event is asked for before the initial metadata is sent, so a client that has the metadata
    misses no later event.
    """
    try:
        asked = EventsRequest.FromString(request)
    except DecodeError as error:
        raise Failed(status.INVALID_ARGUMENT, f"Events: undecodable request: {error}") from None
    last = asked.after if asked.HasField("after") else (await _next(agent, NextEventsRequest())).last
    await context.send_initial_metadata(())
    while True:
        happened = await _next(agent, NextEventsRequest(after=last))
        for event in happened.events:
            await context.write(event.SerializeToString())
        last = happened.last


async def _next(agent: Agent, request: NextEventsRequest) -> NextEventsResponse:
    return await agent.ask(_GUEST, "NextEvents", request, NextEventsResponse)
