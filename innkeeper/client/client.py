"""A connection to an agent, with any number of calls in flight from any number of threads."""

import select
import socket
import threading
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError

from innkeeper.dial import dial
from innkeeper.wire import error_info, status
from innkeeper.wire.connection import CLIENT, Connection, ResponseReceived, StreamsExhausted
from innkeeper.wire.envelope import DecodeError as EnvelopeError
from innkeeper.wire.envelope import Request, Response
from innkeeper.wire.frames import FrameTooLong

R = TypeVar("R")
_READ_SIZE = 1 << 20
_GRACE = 0.2
"""Seconds added to a caller's timeout, so that the server's own deadline answers first."""
_MAX_NANOSECONDS = (1 << 63) - 1
_LONGEST_WAIT = 2e6
"""The longest wait in seconds that is passed to a system call.

poll(2) takes milliseconds in a signed 32-bit int.
"""


class RpcError(Exception):
    """A failed call.

    `code` is one of innkeeper.wire.status. `lost` means that the connection ended before the answer
    arrived. `reason` and `metadata` are the agent's error details for programs
    (innkeeper.wire.error_info), and empty if it sent none.
    """

    def __init__(
        self, code: int, message: str, *, lost: bool = False, reason: str = "", metadata: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        super().__init__(f"{status.name(code)}: {message}")
        self.code = code
        self.message = message
        self.lost = lost
        self.reason = reason
        self.metadata = metadata


class _Call:
    """A call in flight, on which its caller waits."""

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.response: Response | None = None


class PendingCall(Generic[R]):
    """A call that was sent, and whose answer `result` returns. Made by `Client.start`."""

    def __init__(self, client: "Client", method: str, stream: int, call: _Call, response_class: type[R], timeout: float | None) -> None:
        self._client = client
        self._method = method
        self._stream = stream
        self._call = call
        self._response_class = response_class
        self._timeout = timeout
        self.deadline = None if timeout is None else time.monotonic() + timeout + _GRACE

    def result(self) -> R:
        """Wait for the answer and return it.

        Raises RpcError, with DEADLINE_EXCEEDED if it does not come within the call's timeout.
        """
        if not self._call.answered.wait(_left(self.deadline)):
            self._client._give_up(self._stream)
            raise self.late()
        answer = self._call.response
        if answer is None:
            raise RpcError(status.UNAVAILABLE, f"{self._method}: {self._client._lost}", lost=True)
        if answer.code != status.OK:
            raise _failed(answer)
        try:
            return self._response_class.FromString(answer.payload)  # type: ignore[attr-defined, no-any-return]
        except DecodeError as error:
            raise RpcError(status.INTERNAL, f"{self._method}: undecodable response: {error}") from error

    def late(self) -> RpcError:
        """Return the error of a call that took too long."""
        return RpcError(status.DEADLINE_EXCEEDED, f"{self._method}: no answer within {self._timeout} s")


class Client:
    """Calls over one socket.

    A reader thread receives all answers, and each caller sends its own frames. Two locks keep this
    free of deadlocks. `_sending` is held while a caller sends, so that frames stay whole. `_table`
    protects the connection's state and the calls in flight. It is never held while sending, because
    the reader needs it: a server whose answers are not read stops reading, and the sender would
    wait for it forever.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._connection = Connection(CLIENT)
        self._calls: dict[int, _Call] = {}
        self._sending = threading.Lock()
        self._unsent = memoryview(b"")
        """Bytes left over by callers at their deadline. Sent first: frames must stay whole."""
        self._table = threading.Lock()
        """Never held while sending (see the class)."""
        self._lost: str | None = None
        self._reader = threading.Thread(target=self._read, name="innkeeper-client", daemon=True)
        self._reader.start()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Calls in flight fail with `lost`."""
        with self._table:
            self._lost = self._lost or "the connection was closed on this side"
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer has closed it already
        if threading.current_thread() is not self._reader:
            self._reader.join()
        with self._sending:  # wait for senders: another socket may get this number
            self._sock.close()

    def call(self, service: str, method: str, request: Any, response_class: type[R], timeout: float | None = None) -> R:
        """Send the message `request`, wait for the answer and return it as `response_class`.

        Raises RpcError, with DEADLINE_EXCEEDED after `timeout` seconds.
        """
        return self.start(service, method, request, response_class, timeout).result()

    def start(self, service: str, method: str, request: Any, response_class: type[R], timeout: float | None = None) -> PendingCall[R]:
        """Send the message `request`, and return the call, whose answer is still to be waited for.

        The agent serves the calls of a connection at once, in any order. Raises RpcError.
        """
        nanoseconds = 0 if timeout is None else max(1, min(int(timeout * 1e9), _MAX_NANOSECONDS))
        stream, call = self._begin(Request(service, method, request.SerializeToString(), nanoseconds))
        pending = PendingCall(self, method, stream, call, response_class, timeout=timeout)
        if not self._send(method, stream, pending.deadline):
            self._give_up(stream)
            raise pending.late()
        return pending

    def _begin(self, envelope: Request) -> tuple[int, _Call]:
        """Queue a call's frame and register the call.

        Both happen under one lock: the answer may arrive as soon as the frame is sent, and a frame
        is sent by the first caller that gets to the socket.
        """
        call = _Call()
        with self._table:
            if self._lost is not None:
                raise RpcError(status.UNAVAILABLE, f"{envelope.method}: {self._lost}", lost=True)
            try:
                stream = self._connection.send_request(envelope)
            except FrameTooLong as error:
                raise RpcError(status.RESOURCE_EXHAUSTED, f"{envelope.method}: {error}") from error
            except StreamsExhausted as error:
                raise RpcError(status.UNAVAILABLE, f"{envelope.method}: this connection has had all its calls", lost=True) from error
            self._calls[stream] = call
        return stream, call

    def _send(self, method: str, stream: int, deadline: float | None) -> bool:
        """Send everything queued, including this call's frame. Return False at the deadline.

        A frame of which a part was sent stays in `_unsent` for the next caller.
        """
        left = _left(deadline)
        if not self._sending.acquire(timeout=-1 if left is None else left):
            return False
        try:
            with self._table:
                queued = self._connection.data_to_send()
            self._unsent = memoryview(bytes(self._unsent) + queued) if self._unsent else memoryview(queued)
            while self._unsent:
                try:
                    self._unsent = self._unsent[self._sock.send(self._unsent, socket.MSG_DONTWAIT) :]
                except BlockingIOError:
                    if not _writable(self._sock, deadline):
                        return False
        except OSError as error:
            self._give_up(stream)
            raise RpcError(status.UNAVAILABLE, f"{method}: {self._lost or f'connection lost: {error}'}", lost=True) from error
        finally:
            self._sending.release()
        return True

    def _give_up(self, stream: int) -> None:
        with self._table:
            self._calls.pop(stream, None)
            self._connection.forget(stream)

    def _read(self) -> None:
        reason = "the agent closed the connection"
        try:
            while data := self._sock.recv(_READ_SIZE):
                self._take(data)
        except OSError as error:
            reason = f"connection lost: {error}"
        with self._table:
            self._lost = self._lost or reason
            calls = list(self._calls.values())
            self._calls.clear()
        for call in calls:
            call.answered.set()

    def _take(self, data: bytes) -> None:
        with self._table:
            events = self._connection.receive_data(data)
        for event in events:
            if isinstance(event, ResponseReceived):
                with self._table:
                    call = self._calls.pop(event.stream, None)
                if call is not None:
                    call.response = event.response
                    call.answered.set()


def _failed(answer: Response) -> RpcError:
    try:
        reason, metadata = error_info.decode(answer.details)
    except EnvelopeError:
        reason, metadata = "", {}  # the message is still readable
    return RpcError(answer.code, answer.message, reason=reason, metadata=metadata)


def _left(deadline: float | None) -> float | None:
    """Return the seconds until `deadline`, at most _LONGEST_WAIT, or None for no deadline."""
    return None if deadline is None else min(max(0.0, deadline - time.monotonic()), _LONGEST_WAIT)


def _writable(sock: socket.socket, deadline: float | None) -> bool:
    """Wait until the socket accepts bytes or has failed, which sending reports.

    Returns False at the deadline.
    """
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    left = _left(deadline)
    return bool(poll.poll(None if left is None else left * 1000))


def connect(address: str, timeout: float | None = None) -> Client:
    """Dial the agent at `address` (see innkeeper.dial) and return a Client.

    Refused connections are retried until `timeout` seconds have passed. Raises the OSError of the
    last attempt.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = None if deadline is None else max(0.05, deadline - time.monotonic())
        try:
            return Client(dial(address, left))
        except (ConnectionRefusedError, ConnectionResetError):
            # The agent does not listen yet.
            if deadline is None or time.monotonic() >= deadline:
                raise
        time.sleep(0.02)
