"""Forward IPv6 ports of the host.

QEMU's user network listens on IPv4 addresses only, so these ports are bound here and relayed to one
of QEMU's.

Each port has one thread. Each TCP connection has two more (see `socket_relay`). UDP uses one socket
per client, which is how answers find their way back.
"""

import os
import select
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable

from innkeeper.vm.socket_relay import exchange, shut_down

DATAGRAM_MAX = 64 << 10
"""Bytes that are more than any datagram has."""
MAX_CONNECTIONS = 256
"""Concurrent TCP connections of a port, with two descriptors each. More wait to be accepted."""
PAUSE = 0.1
"""Seconds to the next attempt after accept(2) has failed."""
MAX_CLIENTS = 256
"""UDP clients remembered for a port. The one that has been silent longest is dropped first."""
SILENT_SECONDS = 180.0
"""Seconds of silence after which a UDP client is forgotten.

As conntrack does for an answered one (its nf_conntrack_udp_timeout_stream is now 120).
"""
Address = tuple[str, int]


class Relay:
    """A relay from `listener`, a bound IPv6 socket that it takes over, to `port` of 127.0.0.1.

    It runs until `close`.
    """

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
        """Stop listening and end every connection.

        Connections are ended twice. Before the join, because the thread may be waiting for a free
        slot. After it, because the thread may have accepted one more in the meantime.
        """
        os.write(self._wake_write, b"x")
        self._end_connections()  # the thread may be waiting for a slot
        self._thread.join()
        self._end_connections()
        self._listener.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _end_connections(self) -> None:
        """Shut down every connection.

        shutdown(2) wakes the threads that block in recv(2) on them, which close(2) would not. Each
        thread then closes its own sockets, so no descriptor is reused under it.
        """
        with self._lock:
            for sock in self._open:
                shut_down(sock, socket.SHUT_RDWR)

    def _ready(self, sockets: Iterable[socket.socket], seconds: float | None = None) -> set[int] | None:
        """Wait until some of `sockets` are readable, at most `seconds`.

        Return their descriptors, or None after `close`.
        """
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        for sock in sockets:
            poll.register(sock, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(None if seconds is None else seconds * 1000)}
        return None if self._wake_read in ready else ready

    def _serve_tcp(self) -> None:
        """Accept clients until `close`, with at most MAX_CONNECTIONS at a time."""
        self._listener.listen(128)
        slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        while self._ready([self._listener]) is not None:
            try:
                client, _ = self._listener.accept()
            except OSError:
                # The client left before it was accepted, or we are out of descriptors.
                self._ready([], PAUSE)
                continue
            slots.acquire()
            threading.Thread(target=self._connect, args=(client, slots), name="relay", daemon=True).start()

    def _connect(self, client: socket.socket, slots: threading.BoundedSemaphore) -> None:
        """Connect one client to the target and copy until both sides have ended.

        The sockets are in `_open` meanwhile, where `close` finds them.
        """
        try:
            with client, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
                with self._lock:
                    self._open |= {client, server}
                try:
                    server.connect(self._target)
                    exchange(client, server)
                except OSError:
                    pass  # the VM has ended, and so does the connection
                finally:
                    with self._lock:
                        self._open -= {client, server}
        finally:
            slots.release()

    def _serve_udp(self) -> None:
        """Relay datagrams until `close`.

        Datagrams have no connection, and QEMU's answers do not name the client. So each client gets
        a socket of its own, connected to the target: whatever arrives on it is for that client.
        `clients` is ordered by the last datagram from the client, so the first is the one to drop
        when there are too many or it has been silent too long.
        """
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
        """Pass one datagram of a client on, with a new socket if the client is unknown."""
        try:
            data, address = self._listener.recvfrom(DATAGRAM_MAX)
            if address not in clients:
                clients[address] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                heard[address] = time.monotonic()
                clients[address].connect(self._target)
            clients.move_to_end(address)
            heard[address] = time.monotonic()
            clients[address].send(data)
        except OSError:
            pass  # lost, which datagrams may be

    def _to_client(self, sock: socket.socket, address: Address) -> None:
        """Pass one datagram of the target back to its client."""
        try:
            self._listener.sendto(sock.recv(DATAGRAM_MAX), address)
        except OSError:
            pass  # nothing listens in the guest, or the client is gone
