"""A server for one client that answers what the test tells it, by the connection machine; and a relay as hybrid vsock has it."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from innkeeper.wire.connection import SERVER, Connection, RequestReceived
from innkeeper.wire.envelope import Response
from tests.contract.agent_process import PATIENCE


class FakeAgent:
    """The server's end of a socket pair. Every step is the test's."""

    def __init__(self) -> None:
        self.sock, self.client_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.connection = Connection(SERVER)
        self._waiting: list[RequestReceived] = []

    def next_call(self) -> RequestReceived:
        """The next call that arrives."""
        while not self._waiting:
            data = self.sock.recv(1 << 20)
            assert data, "the client has closed"
            self._waiting += [event for event in self.connection.receive_data(data) if isinstance(event, RequestReceived)]
        return self._waiting.pop(0)

    def answer(self, call: RequestReceived, response: Response) -> None:
        self.connection.send_response(call.stream, response)
        self.sock.sendall(self.connection.data_to_send())

    def echo(self, calls: int) -> None:
        """Answer so many calls with their own payload."""
        for _ in range(calls):
            call = self.next_call()
            self.answer(call, Response(payload=call.request.payload))

    def close(self) -> None:
        self.sock.close()
        self.client_end.close()


@contextmanager
def fake_agent() -> Iterator[FakeAgent]:
    """A new one, closed afterwards."""
    agent = FakeAgent()
    try:
        yield agent
    finally:
        agent.close()


@contextmanager
def listening(path: Path, serve: Callable[[socket.socket, int], object]) -> Iterator[None]:
    """A unix socket whose connections are handed to `serve` with their number, one after the other, in a thread."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(16)
    kept: list[socket.socket] = []
    failures: list[BaseException] = []

    def accept() -> None:
        try:
            while True:
                sock, _ = listener.accept()
                sock.settimeout(PATIENCE)
                kept.append(sock)
                serve(sock, len(kept))
        except OSError:
            pass  # shut down
        except AssertionError as failure:
            failures.append(failure)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()
        for sock in kept:
            sock.close()
    assert failures == []
