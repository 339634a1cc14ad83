"""A ttRPC server on a unix socket, with threads: one for each connection, and one for each call.

Calls block: Wait until a container ends, Create until a VM has booted.
"""

import select
import socket
import threading
from collections.abc import Callable

from innkeeper.shim import log
from innkeeper.wire.connection import SERVER, Connection, RequestReceived
from innkeeper.wire.envelope import Request, Response

READ_SIZE = 64 << 10

Handler = Callable[[Request], Response]


class Server:
    """Serve `listener` with `handle`.

    `finished` is asked after each answer, and `unused` while nothing comes. containerd may refuse
    what `start` has answered, and then never connects. So a server to which nobody has anything to
    say for `idle_seconds` ends, if it is `unused`.
    """

    def __init__(
        self, listener: socket.socket, handle: Handler, finished: Callable[[], bool], unused: Callable[[], bool], idle_seconds: float
    ) -> None:
        self._listener = listener
        self._handle = handle
        self._finished = finished
        self._unused = unused
        self._idle_seconds = idle_seconds
        self._wake_read, self._wake_write = socket.socketpair()

    def serve(self) -> None:
        """Accept connections until the server is finished or not used."""
        with self._wake_read, self._wake_write:
            self._serve()

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll(self._idle_seconds * 1000)]
            if self._wake_read.fileno() in ready or (not ready and self._unused()):
                return
            if self._listener.fileno() in ready:
                peer = _Peer(self._listener.accept()[0], self._handle, self._after_answer)
                threading.Thread(target=peer.serve, name="peer", daemon=True).start()

    def _after_answer(self) -> None:
        if self._finished():
            try:
                self._wake_write.send(b"x")
            except OSError:
                pass  # it has ended already


class _Peer:
    """One connection.

    `_state` guards the protocol's state, `_sending` keeps frames whole and in order.
    """

    def __init__(self, sock: socket.socket, handle: Handler, after_answer: Callable[[], None]) -> None:
        self._sock = sock
        self._handle = handle
        self._after_answer = after_answer
        self._connection = Connection(SERVER)
        self._state = threading.Lock()
        self._sending = threading.Lock()

    def serve(self) -> None:
        """Take calls until the peer closes the connection."""
        try:
            while data := self._sock.recv(READ_SIZE):
                with self._state:
                    events = self._connection.receive_data(data)
                self._send()
                for event in events:
                    if isinstance(event, RequestReceived):
                        threading.Thread(target=self._answer, args=(event,), name=event.request.method, daemon=True).start()
        except OSError as error:
            log.info(f"a connection of containerd ended: {error}")
        finally:
            with self._sending:  # wait for senders: another socket may get this number
                self._sock.close()

    def _answer(self, event: RequestReceived) -> None:
        response = self._handle(event.request)
        with self._state:
            self._connection.send_response(event.stream, response)
        try:
            self._send()
        except OSError as error:
            log.info(f"{event.request.method}: its caller has gone: {error}")
        self._after_answer()

    def _send(self) -> None:
        with self._sending:
            with self._state:
                data = self._connection.data_to_send()
            if data:
                self._sock.sendall(data)
