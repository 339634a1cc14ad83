"""Accepts connections, and moves bytes between sockets and the protocol's state machine.

It knows no methods: `answer` decides what happens with a request. A connection has one task that
reads and one for each call. Responses are sent at once as far as the socket takes them; for the
rest there is one task that writes, at most. Three limits bound what one client can make PID 1
hold: MAX_QUEUED for answers that it does not read, MAX_CALLS and MAX_CALL_BYTES for calls in
flight.
"""

from agent import log
from agent.loop import Event, Socket, current_task, readable, spawn
from agent.loop.sockets import accept, send_all
from innkeeper.wire import status
from innkeeper.wire.connection import SERVER, Connection, DataReceived, RequestReceived
from innkeeper.wire.envelope import Response
from innkeeper.wire.frames import MAX_PAYLOAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from agent.loop import Task
    from innkeeper.wire.envelope import Request

READ_QUANTUM = 16 << 10
"""Bytes that are read from one client before the others are served.

That is a few hundred small requests.
"""
LARGE_READ = 256 << 10
"""Most bytes of one read while a long message is incomplete."""
LARGE_REQUEST = 64 << 10
"""Bytes of a request whose memory goes back to the kernel when it has ended."""
MAX_QUEUED = 8 << 20
"""Bytes of queued answers above which a client is not read from.

Reading goes on when the client has taken its answers.
"""
MAX_CALLS = 4096
"""Calls in flight on one connection.

A container needs three that block, and so does each exec.
"""
MAX_CALL_BYTES = 64 << 20
"""Total size of the payloads of the calls in flight on one connection."""


class Answer:
    """The answer to a call: `response`, or `call`, which a task runs to make the response.

    `abandon` means that the call only waits or reads, so it is cancelled when the client is gone.
    Other calls run to their end.
    """

    __slots__ = ("abandon", "call", "response")

    def __init__(
        self,
        response: Response | None = None,
        call: "Callable[[], Coroutine[Any, Any, Response]] | None" = None,
        abandon: bool = False,
    ) -> None:
        self.response = response
        self.call = call
        self.abandon = abandon


async def serve(listener: Socket, answer: "Callable[[Request], Answer]") -> None:
    """Accept clients, one in each round of the loop, until the task is cancelled.

    The listener is closed at the end.
    """
    with listener:
        while True:
            spawn(Peer(await accept(listener), answer).run(), name="connection")


class Peer:
    """One client connection. `limit` is the longest payload of a frame in bytes."""

    def __init__(self, sock: Socket, answer: "Callable[[Request], Answer]", limit: int = MAX_PAYLOAD) -> None:
        self._sock = sock
        self._answer = answer
        self._connection = Connection(SERVER, limit)
        self._tasks: dict[Task[None], bool] = {}
        self._call_bytes = 0
        self._quantum = 0
        self._writer: Task[None] | None = None
        self._drained = Event()
        self._gone = False

    async def run(self) -> None:
        """Read until the client is gone, then cancel the calls that only wait."""
        try:
            while await self._read():
                if self._connection.outgoing > MAX_QUEUED:
                    await self._until_drained()
            if self._connection.mid_frame:
                log.warn("connection ended within a frame", "rpc")
        except OSError as error:
            log.warn(f"connection lost: {error}", "rpc")
        finally:
            self._close()

    async def _read(self) -> bool:
        """Read the available bytes and process the complete frames. Return False at the end.

        After READ_QUANTUM bytes the task waits for the socket, even if it is readable already. That
        yields to the loop, so one client that never stops sending cannot starve the others.
        """
        if self._quantum <= 0:
            await readable(self._sock)
            self._quantum = READ_QUANTUM
        try:
            data = self._sock.recv(min(max(self._connection.missing, READ_QUANTUM), LARGE_READ))
        except BlockingIOError:
            self._quantum = 0
            return not self._gone
        self._quantum -= len(data)
        for event in self._connection.receive_data(data):
            if isinstance(event, RequestReceived):
                self._begin(event)
            elif isinstance(event, DataReceived) and event.data is not None:
                log.debug("data frame dropped: every method here is unary", "rpc")
        self._flush()
        return bool(data)

    def _begin(self, event: RequestReceived) -> None:
        """Answer a request at once, refuse it, or start the task of its call.

        An immediate answer does not count against the limits, so Check works whatever else is in
        flight.
        """
        if event.streaming:
            refusal = Response(status.UNIMPLEMENTED, f"{event.request.service}/{event.request.method} is not a streaming method")
            self._connection.send_response(event.stream, refusal)
            return
        answer = self._answer(event.request)
        size = len(event.request.payload)
        if answer.response is not None:
            self._connection.send_response(event.stream, answer.response)
        elif len(self._tasks) >= MAX_CALLS or self._call_bytes + size > MAX_CALL_BYTES:
            self._connection.send_response(event.stream, Response(status.RESOURCE_EXHAUSTED, "too many calls in flight"))
        elif answer.call is not None:
            self._call_bytes += size
            task = spawn(self._complete(event.stream, answer.call, size), name=event.request.method)
            self._tasks[task] = answer.abandon

    async def _complete(self, stream: int, call: "Callable[[], Coroutine[Any, Any, Response]]", size: int) -> None:
        """Run a call and send its response.

        The limits are released in any case, also if the task is cancelled.
        """
        try:
            response = await call()
        finally:
            self._call_bytes -= size
            self._tasks.pop(current_task(), None)
            if size >= LARGE_REQUEST:
                from agent.service import malloc_trim  # not before there is one

                malloc_trim.trim_soon()
        self._connection.send_response(stream, response)
        if not self._gone:
            self._flush()

    def _flush(self) -> None:
        """Send the queued bytes that the socket takes now. A task sends the rest, if any.

        Does nothing while such a task runs: it takes the queue when it is done with its bytes.
        """
        if self._writer is not None or not self._connection.outgoing:
            return
        rest = memoryview(self._connection.data_to_send())
        try:
            rest = rest[self._sock.send(rest) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._lost(error)
            return
        if rest:
            self._writer = spawn(self._write(rest), name="writer")

    async def _write(self, rest: memoryview) -> None:
        """Send `rest`, and then what was queued meanwhile."""
        try:
            while True:
                await send_all(self._sock, rest)
                if not self._connection.outgoing:
                    break
                rest = memoryview(self._connection.data_to_send())
        except OSError as error:
            self._lost(error)
        finally:
            self._writer = None
            self._drained.set()

    async def _until_drained(self) -> None:
        """Wait until the task that writes has ended."""
        self._drained.clear()
        while self._writer is not None:
            await self._drained.wait()

    def _lost(self, error: OSError) -> None:
        """Note that the client is gone. `run` then ends the connection."""
        log.debug(f"client is gone: {error}", "rpc")
        self._gone = True

    def _close(self) -> None:
        """Close the socket and cancel the calls that only wait.

        The other calls run to their end, because they may have changed something already. Their
        responses are dropped.
        """
        self._gone = True
        if self._writer is not None:
            self._writer.cancel()
        for task, abandon in list(self._tasks.items()):
            if abandon:
                task.cancel()
        self._sock.close()
