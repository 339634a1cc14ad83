"""Ports of the host in IPv6: QEMU's user network listens on IPv4 addresses alone, so these are taken here and led to one of its ports.

One thread for each port; for each TCP connection two more, with blocking calls, so what is in flight is bounded by one piece and the
sockets' buffers. UDP has a socket for each client, by which answers find their way back.
"""

import os
import select
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable

PIECE = 64 << 10
"""bytes; also more than any datagram"""
MAX_CONNECTIONS = 256
"""TCP connections at one time for a port, with two descriptors each; more wait to be accepted."""
PAUSE = 0.1
"""Seconds before the next attempt when a client could not be accepted."""
MAX_CLIENTS = 256
"""UDP clients that are remembered for a port; the one that has been silent the longest gives way."""
SILENT_SECONDS = 180.0
"""After which a UDP client is forgotten; conntrack's figure for one that has been answered (nf_conntrack_udp_timeout_stream has 120)."""
Address = tuple[str, int]


class Relay:
    """Leads `listener`, a bound IPv6 socket that is this relay's from now on, to `port` of 127.0.0.1. Ends with `close`."""

    def __init__(self, listener: socket.socket, port: int) -> None:
        self._listener = listener
        self._target = ("127.0.0.1", port)
        self._wake_read, self._wake_write = os.pipe()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        tcp = listener.type == socket.SOCK_STREAM
        self._thread = threading.Thread(target=self._serve_tcp if tcp else self._serve_udp, name=f"relay to {port}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and end every connection."""
        os.write(self._wake_write, b"x")
        self._end_connections()  # the thread may be waiting for one to end
        self._thread.join()
        self._end_connections()
        self._listener.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _end_connections(self) -> None:
        with self._lock:
            for sock in self._open:
                shut_down(sock, socket.SHUT_RDWR)

    def _ready(self, sockets: Iterable[socket.socket], seconds: float | None = None) -> set[int] | None:
        """Wait until some of `sockets` can be read from. Return their descriptors; None once `close` has been called."""
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        for sock in sockets:
            poll.register(sock, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(None if seconds is None else seconds * 1000)}
        return None if self._wake_read in ready else ready

    def _serve_tcp(self) -> None:
        self._listener.listen(128)
        slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        while self._ready([self._listener]) is not None:
            try:
                client, _ = self._listener.accept()
            except OSError:
                self._ready([], PAUSE)  # it left before it was accepted, or there is no descriptor left
                continue
            slots.acquire()
            threading.Thread(target=self._connect, args=(client, slots), name="relay", daemon=True).start()

    def _connect(self, client: socket.socket, slots: threading.BoundedSemaphore) -> None:
        try:
            with client, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
                with self._lock:
                    self._open |= {client, server}
                try:
                    server.connect(self._target)
                    _exchange(client, server)
                except OSError:
                    pass  # the machine has ended: so does the connection
                finally:
                    with self._lock:
                        self._open -= {client, server}
        finally:
            slots.release()

    def _serve_udp(self) -> None:
        clients: OrderedDict[Address, socket.socket] = OrderedDict()
        heard: dict[Address, float] = {}
        try:
            while True:
                ready = self._ready([self._listener, *clients.values()], SILENT_SECONDS)
                if ready is None:
                    return
                for address, sock in clients.items():
                    if sock.fileno() in ready:
                        self._to_client(sock, address)
                if self._listener.fileno() in ready:
                    self._from_client(clients, heard)
                while clients and (time.monotonic() - heard[next(iter(clients))] > SILENT_SECONDS or len(clients) > MAX_CLIENTS):
                    address, sock = clients.popitem(last=False)
                    del heard[address]
                    sock.close()
        finally:
            for sock in clients.values():
                sock.close()

    def _from_client(self, clients: "OrderedDict[Address, socket.socket]", heard: dict[Address, float]) -> None:
        try:
            data, address = self._listener.recvfrom(PIECE)
            if address not in clients:
                clients[address] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                heard[address] = time.monotonic()
                clients[address].connect(self._target)
            clients.move_to_end(address)
            heard[address] = time.monotonic()
            clients[address].send(data)
        except OSError:
            pass  # lost, as datagrams may be

    def _to_client(self, sock: socket.socket, address: Address) -> None:
        try:
            self._listener.sendto(sock.recv(PIECE), address)
        except OSError:
            pass  # nobody listens in the guest, or the client has gone


def _exchange(client: socket.socket, server: socket.socket) -> None:
    """Copy both ways until both have ended. Each end is passed on by itself: one who has said all may still listen."""
    upward = threading.Thread(target=_copy, args=(client, server), name="relay up", daemon=True)
    upward.start()
    _copy(server, client)
    upward.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(PIECE):
            target.sendall(data)
    except OSError:
        shut_down(source, socket.SHUT_RDWR)  # one of both is gone: the other direction has nothing to wait for either
        shut_down(target, socket.SHUT_RDWR)
    shut_down(target, socket.SHUT_WR)


def shut_down(sock: socket.socket, how: int) -> None:
    """shutdown(2); no error for a socket that is not connected any more."""
    try:
        sock.shutdown(how)
    except OSError:
        pass
