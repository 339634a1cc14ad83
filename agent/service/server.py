"""Accepts connections and moves bytes between sockets and the protocol's machine. Knows no method."""

import _socket as socket  # the public module imports enum and selectors, which start-up does without
import os

from agent import log
from agent.loop import Event, current_task, readable, sleep, spawn, writable
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

VMADDR_CID_ANY = 0xFFFFFFFF
VMADDR_CID_HOST = 2
BACKLOG = 128
"""The shim redials in a tight loop while the guest boots."""
ACCEPT_PAUSE = 0.1
"""Seconds before the next attempt when a client could not be accepted."""
TURN = 16 << 10
"""Bytes read from one client before the others have their turn: a few hundred small requests."""
LARGE_READ = 256 << 10
"""Or so much of one long message."""
MAX_QUEUED = 8 << 20
"""A client that leaves this many bytes of answers unread is not read from until it takes them."""
MAX_CALLS = 4096
"""Calls in flight on one connection; a container needs three that block, an exec as many."""
MAX_CALL_BYTES = 64 << 20
"""Payloads of calls in flight on one connection."""


class Answer:
    """How a call is answered: at once (`response`), or by a task that runs `call` to make the response.

    `abandon`: the call only waits or reads, so it is cancelled when the client is gone; others run to their end.
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


def listen(address: str) -> socket.socket:
    """A listening socket for `vsock://CID:PORT` (CID -1: any) or `unix:///path`, `unix://@abstract`. Raises OSError, ValueError."""
    scheme, _, rest = address.partition("://")
    target: object
    if scheme == "vsock":
        cid, _, port = rest.partition(":")
        family, target = socket.AF_VSOCK, (VMADDR_CID_ANY if int(cid) == -1 else int(cid), int(port))
    elif scheme == "unix" and rest:
        family, target = socket.AF_UNIX, "\0" + rest[1:] if rest.startswith("@") else rest
    else:
        raise ValueError(f"not a vsock:// or unix:// address: {address}")
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    try:
        sock.bind(target)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


async def serve(listener: socket.socket, answer: "Callable[[Request], Answer]") -> None:
    """Accept clients, one in each round of the loop, until the task is cancelled; then close the listener."""
    try:
        while True:
            sock = await accept(listener)
            if sock is not None:
                spawn(Peer(sock, answer).run(), name="connection")
    finally:
        listener.close()


async def accept(listener: socket.socket) -> "socket.socket | None":
    """Wait for a connection. None when it came to nothing, or over vsock from elsewhere than the host."""
    await readable(listener.fileno())
    try:
        fd, peer = listener._accept()  # type: ignore[attr-defined]  # what socket.accept calls
    except BlockingIOError:
        return None
    except OSError as error:
        # no descriptor left, or a client that left before it was accepted: neither ends the service
        log.warn(f"accept: {error}", "rpc")
        await sleep(ACCEPT_PAUSE)
        return None
    if listener.family == socket.AF_VSOCK and peer[0] != VMADDR_CID_HOST:
        # vsock has no namespaces: a container without a filter may call, and nothing in the guest is the host
        log.warn(f"connection from vsock {peer[0]}, which is not the host: closed", "rpc")
        os.close(fd)
        return None
    os.set_blocking(fd, False)
    return socket.socket(listener.family, listener.type, 0, fd)


class Peer:
    """One client. `limit`: the longest payload of a frame."""

    def __init__(self, sock: socket.socket, answer: "Callable[[Request], Answer]", limit: int = MAX_PAYLOAD) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._answer = answer
        self._connection = Connection(SERVER, limit)
        self._tasks: dict[Task[None], bool] = {}
        self._call_bytes = 0
        self._turn = 0
        self._writer: Task[None] | None = None
        self._drained = Event()
        self._gone = False

    async def run(self) -> None:
        """Read until the client is gone; then drop the calls that nobody waits for any more."""
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
        """Take in what is there. By way of the loop when the turn is over: a client that never stops sending waits for its next one."""
        if self._turn <= 0:
            await readable(self._fd)
            self._turn = TURN
        try:
            data = self._sock.recv(min(max(self._connection.missing, TURN), LARGE_READ))
        except BlockingIOError:
            self._turn = 0
            return not self._gone
        self._turn -= len(data)
        for event in self._connection.receive_data(data):
            if isinstance(event, RequestReceived):
                self._begin(event)
            elif isinstance(event, DataReceived) and event.data is not None:
                log.debug("data frame dropped: every method here is unary", "rpc")
        self._flush()
        return bool(data)

    def _begin(self, event: RequestReceived) -> None:
        if event.streaming:
            refusal = Response(status.UNIMPLEMENTED, f"{event.request.service}/{event.request.method} is not a streaming method")
            self._connection.send_response(event.stream, refusal)
            return
        answer = self._answer(event.request)
        size = len(event.request.payload)
        if answer.response is not None:
            self._connection.send_response(event.stream, answer.response)  # Check has an answer whatever else is in flight
        elif len(self._tasks) >= MAX_CALLS or self._call_bytes + size > MAX_CALL_BYTES:
            self._connection.send_response(event.stream, Response(status.RESOURCE_EXHAUSTED, "too many calls in flight"))
        elif answer.call is not None:
            self._call_bytes += size
            task = spawn(self._complete(event.stream, answer.call, size), name=event.request.method)
            self._tasks[task] = answer.abandon

    async def _complete(self, stream: int, call: "Callable[[], Coroutine[Any, Any, Response]]", size: int) -> None:
        try:
            response = await call()
        finally:
            self._call_bytes -= size
            self._tasks.pop(current_task(), None)
        self._connection.send_response(stream, response)
        if not self._gone:
            self._flush()

    def _flush(self) -> None:
        """Send what is queued; what the socket does not take now is sent by a task of its own."""
        if self._writer is not None or not self._connection.outgoing:
            return
        data = self._connection.data_to_send()
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lost(error)
            return
        if sent < len(data):
            self._writer = spawn(self._write(memoryview(data)[sent:]), name="writer")

    async def _write(self, rest: memoryview) -> None:
        try:
            while True:
                while rest:
                    await writable(self._fd)
                    rest = rest[self._sock.send(rest) :]
                if not self._connection.outgoing:
                    break
                rest = memoryview(self._connection.data_to_send())
        except OSError as error:
            self._lost(error)
        finally:
            self._writer = None
            self._drained.set()

    async def _until_drained(self) -> None:
        self._drained.clear()
        while self._writer is not None:
            await self._drained.wait()

    def _lost(self, error: OSError) -> None:
        log.debug(f"client is gone: {error}", "rpc")
        self._gone = True

    def _close(self) -> None:
        self._gone = True
        if self._writer is not None:
            self._writer.cancel()
        for task, abandon in list(self._tasks.items()):
            if abandon:
                task.cancel()
        self._sock.close()
