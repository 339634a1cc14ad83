"""A client of the agent, for asyncio.

Each call uses a connection of its own. ttRPC cannot cancel a call, but the agent cancels the calls
that only wait when their client is gone. So a gRPC call that is cancelled, or whose deadline
passes, ends in PID 1 as well.
"""

import asyncio
import socket
from typing import Any, TypeVar

from innkeeper.wire import status
from innkeeper.wire.connection import CLIENT, Connection, ResponseReceived
from innkeeper.wire.envelope import Request, Response
from innkeeper.wire.frames import FrameTooLong
from innkeeper.wire.grpc import MAX_FRAME

R = TypeVar("R")
READ_SIZE = 256 << 10
"""Most bytes of one read."""
RETRY = 0.005
"""Seconds until the next attempt while the agent's accept queue is full."""


class Failed(Exception):
    """Raised for a call whose status is not OK.

    `status` is the serialized google.rpc.Status of the agent if it has details, else empty.
    """

    def __init__(self, code: int, message: str, status: bytes = b"") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


class Agent:
    """The agent at the other end of a unix socket."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def call(self, request: Request) -> bytes:
        """Make a call and return the payload of the response. Raises Failed."""
        connection = Connection(CLIENT, MAX_FRAME)
        try:
            connection.send_request(request)
        except FrameTooLong as error:
            raise Failed(status.RESOURCE_EXHAUSTED, str(error)) from None
        try:
            response = await self._exchange(connection)
        except OSError as error:
            raise Failed(status.UNAVAILABLE, f"the agent: {error}") from error
        if response.code != status.OK:
            raise Failed(response.code, response.message, response.encode_status() if response.details else b"")
        return response.payload

    async def ask(self, service: str, method: str, message: Any, response_class: type[R]) -> R:
        """Make a call with message objects and return the response. Raises Failed."""
        answer = await self.call(Request(service, method, message.SerializeToString()))
        return response_class.FromString(answer)  # type: ignore[attr-defined, no-any-return]

    async def _exchange(self, connection: Connection) -> Response:
        """Send the request and return the response.

        Raises OSError, also if the agent closes the connection without a response.
        """
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            await self._connect(sock)
            await loop.sock_sendall(sock, connection.data_to_send())
            while data := await loop.sock_recv(sock, READ_SIZE):
                for event in connection.receive_data(data):
                    if isinstance(event, ResponseReceived):
                        return event.response
        raise ConnectionResetError("closed the connection")

    async def _connect(self, sock: socket.socket) -> None:
        """Connect to the agent. Raises OSError.

        connect(2) on a non-blocking unix socket either succeeds at once or fails. EAGAIN means
        that the accept queue is full, and there is no event to wait for, so it is tried again
        after RETRY.
        """
        while True:
            try:
                return sock.connect(self._path)
            except BlockingIOError:
                await asyncio.sleep(RETRY)
