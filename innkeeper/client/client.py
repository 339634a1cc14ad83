"""A connection to an agent with any number of calls in flight, from any number of threads."""

import select
import socket
import threading
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from innkeeper.client.address import dial
from innkeeper.wire import error_info, status
from innkeeper.wire.connection import CLIENT, Connection, ResponseReceived, StreamsExhausted
from innkeeper.wire.envelope import DecodeError as EnvelopeError
from innkeeper.wire.envelope import Request, Response
from innkeeper.wire.frames import FrameTooLong

R = TypeVar("R")
_READ_SIZE = 1 << 20
_GRACE = 0.2
"""Seconds past a caller's time limit: the server's own deadline speaks first."""
_MAX_NANOSECONDS = (1 << 63) - 1
_LONGEST_WAIT = 2e6


class RpcError(Exception):
    """A call failed. `code` is one of innkeeper.wire.status, `lost`: the connection ended before the answer came.

    `reason` and `metadata` are what the agent says to programs (innkeeper.wire.error_info); empty where it says nothing.
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
    """A caller's place to wait."""

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.response: Response | None = None


class Client:
    """Calls over one socket. A thread of its own reads answers; each caller sends for itself."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._connection = Connection(CLIENT)
        self._calls: dict[int, _Call] = {}
        self._sending = threading.Lock()
        self._unsent = memoryview(b"")
        """What the socket has not taken of the frames of callers whose time was up; goes first, as frames must stay whole."""
        self._table = threading.Lock()
        """Never held while sending: the reader takes it, and a server whose answers are not read stops reading."""
        self._lost: str | None = None
        self._reader = threading.Thread(target=self._read, name="innkeeper-client", daemon=True)
        self._reader.start()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; calls in flight fail with `lost`."""
        with self._table:
            self._lost = self._lost or "the connection was closed on this side"
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended already
        if threading.current_thread() is not self._reader:
            self._reader.join()
        with self._sending:  # a sender has seen the end by now, and must not find another socket under the same number
            self._sock.close()

    def call(self, service: str, method: str, request: Any, response_class: type[R], timeout: float | None = None) -> R:
        """Send `request`, a message, and wait for the answer. Raises RpcError; DEADLINE_EXCEEDED after `timeout` seconds."""
        nanoseconds = 0 if timeout is None else max(1, min(int(timeout * 1e9), _MAX_NANOSECONDS))
        deadline = None if timeout is None else time.monotonic() + timeout + _GRACE
        stream, call = self._begin(Request(service, method, request.SerializeToString(), nanoseconds))
        if not self._send(method, stream, deadline) or not call.answered.wait(_left(deadline)):
            self._give_up(stream)
            raise RpcError(status.DEADLINE_EXCEEDED, f"{method}: no answer within {timeout} s")
        answer = call.response
        if answer is None:
            raise RpcError(status.UNAVAILABLE, f"{method}: {self._lost}", lost=True)
        if answer.code != status.OK:
            raise _failed(answer)
        try:
            return response_class.FromString(answer.payload)  # type: ignore[attr-defined, no-any-return]
        except DecodeError as error:
            raise RpcError(status.INTERNAL, f"{method}: undecodable response: {error}") from error

    def _begin(self, envelope: Request) -> tuple[int, _Call]:
        """Queue a call's frame and enter the call into the table."""
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
        """Send what is queued, this call's frame with it. False: the time is up before the socket took all of it."""
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
        reason, metadata = "", {}  # the message is there for people all the same
    return RpcError(answer.code, answer.message, reason=reason, metadata=metadata)


def _left(deadline: float | None) -> float | None:
    """Seconds until `deadline`, as far as system calls can count."""
    return None if deadline is None else min(max(0.0, deadline - time.monotonic()), _LONGEST_WAIT)


def _writable(sock: socket.socket, deadline: float | None) -> bool:
    """Wait until the socket takes bytes (or has failed, which sending tells). False: not before `deadline`."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    left = _left(deadline)
    return bool(poll.poll(None if left is None else left * 1000))


def connect(address: str, timeout: float | None = None) -> Client:
    """Dial the agent at `address` (see innkeeper.client.address) until it takes the call or `timeout` seconds have passed.

    Raises OSError: what the last attempt failed with.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = None if deadline is None else max(0.05, deadline - time.monotonic())
        try:
            return Client(dial(address, left))
        except (ConnectionRefusedError, ConnectionResetError):
            # nobody listens there yet
            if deadline is None or time.monotonic() >= deadline:
                raise
        time.sleep(0.02)
