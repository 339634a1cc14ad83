"""Guest.Attach: the standard streams of a process as one gRPC call.

The call is made of unary calls to the agent. At most one piece of each stream is in flight. The
next piece of output is read from the agent when gRPC has taken the last one. The next input is
taken from gRPC when the process has read the last one.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import DecodeError

from agent.gateway.agent_client import Agent, Failed
from innkeeper.wire import status
from innkeeper.wire.pb import agent_pb2, empty_pb2
from innkeeper.wire.pb.guest_pb2 import AttachRequest, AttachResponse

READ_MAX = 256 << 10
"""Most bytes of output in one message."""
_AGENT = "grpc.AgentService"


class BadInput(Failed):
    """Raised when the client has broken the rules of the call. It ends the call."""

    def __init__(self, message: str) -> None:
        super().__init__(status.INVALID_ARGUMENT, message)


async def attach(agent: Agent, requests: "AsyncIterator[bytes]", context: Any) -> None:
    """Serve one call to its end. Raises Failed."""
    first = decode(await anext(requests, b""))
    if first.WhichOneof("input") != "process":
        raise BadInput("process: must be the first message")
    attachment = Attachment(agent, context, first.process)
    failed: Failed | None = None
    try:
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(attachment.feed(requests))
            await attachment.until_exit()
            feeding.cancel()
    except* Failed as failures:
        failed = next(error for error in failures.exceptions if isinstance(error, Failed))
    if failed is not None:
        raise failed


def decode(data: bytes) -> AttachRequest:
    """Decode a message of the client. Raises BadInput."""
    try:
        return AttachRequest.FromString(data)
    except DecodeError as error:
        raise BadInput(f"Attach: undecodable request: {error}") from None


class Attachment:
    """The connection of one call to one process."""

    def __init__(self, agent: Agent, context: Any, process: AttachRequest.Process) -> None:
        self._agent = agent
        self._context = context
        self._ids: dict[str, Any] = {"container_id": process.container_id, "exec_id": process.exec_id}
        self._writing = asyncio.Lock()

    async def until_exit(self) -> None:
        """Send both outputs to their ends, then the exit status. Raises Failed."""
        await asyncio.gather(self._output("ReadStdout", "stdout"), self._output("ReadStderr", "stderr"))
        request = agent_pb2.WaitProcessRequest(**self._ids)
        ended = await self._agent.ask(_AGENT, "WaitProcess", request, agent_pb2.WaitProcessResponse)
        await self._write(AttachResponse(exit_status=ended.status))

    async def _output(self, method: str, stream: str) -> None:
        """Send one output to its end. Raises Failed."""
        request = agent_pb2.ReadStreamRequest(**self._ids, len=READ_MAX)
        while True:
            try:
                data = (await self._agent.ask(_AGENT, method, request, agent_pb2.ReadStreamResponse)).data
            except Failed as error:
                if stream == "stderr" and error.code == status.FAILED_PRECONDITION:
                    return  # a process with a terminal has no stderr of its own
                raise
            if not data:
                return
            await self._write(AttachResponse(stdout=data) if stream == "stdout" else AttachResponse(stderr=data))

    async def feed(self, requests: "AsyncIterator[bytes]") -> None:
        """Pass the input on until the client sends no more. Raises BadInput.

        A refusal by the agent is sent to the client as a message and does not end the call.
        """
        async for data in requests:
            request = decode(data)
            try:
                await self._pass_on(request)
            except BadInput:
                raise
            except Failed as error:
                await self._write(AttachResponse(refused=AttachResponse.Refusal(code=error.code, message=error.message)))

    async def _pass_on(self, request: AttachRequest) -> None:
        """Make the agent's call for one message. Raises Failed."""
        kind = request.WhichOneof("input")
        if kind == "stdin":
            if request.stdin:  # an empty write would close the input
                await self._ask("WriteStdin", agent_pb2.WriteStreamRequest(**self._ids, data=request.stdin), agent_pb2.WriteStreamResponse)
        elif kind == "close_stdin":
            await self._ask("CloseStdin", agent_pb2.CloseStdinRequest(**self._ids), empty_pb2.Empty)
        elif kind == "resize":
            size = request.resize
            resized = agent_pb2.TtyWinResizeRequest(**self._ids, row=size.rows, column=size.columns)
            await self._ask("TtyWinResize", resized, empty_pb2.Empty)
        elif kind == "signal":
            await self._ask("SignalProcess", agent_pb2.SignalProcessRequest(**self._ids, signal=request.signal), empty_pb2.Empty)
        elif kind == "process":
            raise BadInput("process: only the first message may name it")
        else:
            raise BadInput("input: the message has none of the fields that this agent knows")

    async def _ask(self, method: str, message: Any, response_class: type[Any]) -> None:
        await self._agent.ask(_AGENT, method, message, response_class)

    async def _write(self, response: AttachResponse) -> None:
        async with self._writing:  # gRPC takes one message at a time
            await self._context.write(response.SerializeToString())
