"""Give a virtio-serial port the interface of vhost-device-vsock: a unix socket for guest ports.

A client connects to the socket in the VM's folder, sends "CONNECT PORT\\n" and reads "OK PORT\\n".
One thread of the process that owns the VM serves all of them. The guest is not trusted: what it
sends beside the protocol ends the stream.
"""

import errno
import fcntl
import os
import select
import socket
import struct
import termios
import threading
import time

from innkeeper.wire.multiplexer import ACCEPT, DATA, END, NONCE_SIZE, READY, RESET, Event, Multiplexer, ProtocolError

READ_SIZE = 256 << 10
GREETING = 32
"""Longest "CONNECT PORT\\n" in bytes."""
MAX_CLIENTS = 512
QUIESCE_SECONDS = 5.0
"""Seconds that QEMU may take to read what was sent."""


class _Client:
    """A client, from its greeting on.

    `outgoing` is what it has not read yet; `number` is its connection, or 0 before the greeting.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.greeting = b""
        self.port = 0
        self.number = 0
        self.accepted = False
        self.outgoing = bytearray()
        self.uncredited = 0
        self.reads = True  # our side still reads from the client
        self.ended = False  # the guest sends no more
        self.reset = False


class SerialRelay:
    """Relays between `listener` and `stream`, QEMU's end of the port. Takes over all three sockets.

    `ready` is closed when the guest serves its ports. `failure` is why the stream ended, if the
    guest is at fault. `resume`: the guest was saved while another relay had the stream.
    """

    def __init__(self, listener: socket.socket, stream: socket.socket, ready: socket.socket, *, resume: bool = False) -> None:
        self.failure: str | None = None
        self._listener = listener
        self._stream = stream
        self._ready = ready
        self._multiplexer = Multiplexer(host=True, resume=os.urandom(NONCE_SIZE) if resume else b"")
        self._unsent = b""
        self._holds = False
        self._held = threading.Event()
        self._closing = threading.Lock()
        """Held while the stream is closed, or used by another thread."""
        self._ended = False
        self._clients: dict[int, _Client] = {}
        self._numbers: dict[int, _Client] = {}
        self._wake_read, self._wake_write = os.pipe()
        for sock in (listener, stream):
            sock.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="virtio-serial relay", daemon=True)
        self._thread.start()

    def quiesce(self) -> None:
        """Send no more, end after a whole frame, and wait until QEMU has taken all of it.

        So the first bytes that a restored guest gets begin a frame. Raises OSError.
        """
        deadline = time.monotonic() + QUIESCE_SECONDS
        with self._closing:
            if not self._ended:
                self._held.clear()
        self._holds = True
        os.write(self._wake_write, b"q")
        taken = self._held.wait(QUIESCE_SECONDS)
        while taken and self._unread():
            taken = time.monotonic() < deadline
            time.sleep(0.001)
        if not taken:
            self.resume_sending()
            raise OSError(errno.ETIMEDOUT, "QEMU does not read the virtio-serial port")

    def resume_sending(self) -> None:
        """Go on after `quiesce`."""
        self._holds = False
        os.write(self._wake_write, b"r")

    def close(self) -> None:
        """End every connection and the thread."""
        os.write(self._wake_write, b"x")
        self._thread.join()
        self._ready.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _unread(self) -> int:
        """Return how many bytes QEMU has not taken (unix(7), SIOCOUTQ).

        Raises OSError if it has ended.
        """
        with self._closing:
            if self._ended:
                raise OSError(errno.EPIPE, "QEMU has closed the virtio-serial port")
            return int(struct.unpack("i", fcntl.ioctl(self._stream, termios.TIOCOUTQ, bytes(4)))[0])

    def _run(self) -> None:
        try:
            while self._round():
                pass
        except ProtocolError as error:
            self.failure = f"the guest's virtio-serial port: {error}"
        finally:
            for client in self._clients.values():
                client.sock.close()
            self._listener.close()
            with self._closing:
                self._stream.close()
                self._ended = True
                self._held.set()

    def _round(self) -> bool:
        """Wait for something to do, and do it. Return False at the end of the stream."""
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        waits = self._unsent or (self._multiplexer.outgoing and not self._holds)
        poll.register(self._stream, select.POLLIN | (select.POLLOUT if waits else 0))
        if len(self._clients) < MAX_CLIENTS and self._multiplexer.resumed:
            poll.register(self._listener, select.POLLIN)
        for client in self._clients.values():
            reads = client.reads and (not client.number or self._multiplexer.room(client.number) > 0)
            if reads or client.outgoing or not client.reads:
                # Without any mask the end of the client is reported all the same.
                poll.register(client.sock, (select.POLLIN if reads else 0) | (select.POLLOUT if client.outgoing else 0))
        for fd, mask in poll.poll():
            if fd == self._wake_read:
                if b"x" in os.read(self._wake_read, 64):
                    return False
            elif fd == self._stream.fileno():
                if not self._read_stream(mask):
                    return False
            elif fd == self._listener.fileno():
                self._accept()
            elif (ready := self._clients.get(fd)) is not None:
                self._serve(ready, mask)
        return self._write_stream()

    def _read_stream(self, mask: int) -> bool:
        """Process what the guest has sent. Return False when QEMU has closed the port."""
        if not mask & ~select.POLLOUT:
            return True
        try:
            data = self._stream.recv(READ_SIZE)
        except OSError:
            return False  # QEMU has ended
        for event in self._multiplexer.receive_data(data):
            if event.kind == READY:
                self._ready.close()
            elif (client := self._numbers.get(event.connection)) is not None:
                self._handle(client, event)
        return bool(data)

    def _write_stream(self) -> bool:
        """Send what the guest takes. Return False when QEMU has closed the port."""
        if not self._unsent and not self._holds:
            self._unsent = self._multiplexer.data_to_send()
        if self._unsent:
            try:
                self._unsent = self._unsent[self._stream.send(self._unsent) :]
            except BlockingIOError:
                pass  # the guest does not read at the moment
            except OSError:
                return False
        if self._holds and not self._unsent:
            self._held.set()
        return True

    def _accept(self) -> None:
        try:
            sock = self._listener.accept()[0]
        except OSError:
            return  # the client has left already, or we are out of descriptors
        sock.setblocking(False)
        self._clients[sock.fileno()] = _Client(sock)

    def _handle(self, client: _Client, event: Event) -> None:
        """Process one frame of the guest for a client."""
        if event.kind == ACCEPT and not client.accepted:
            client.accepted = True
            client.outgoing += b"OK %d\n" % client.port
            client.uncredited -= len(client.outgoing)
        elif event.kind == DATA:
            client.outgoing += event.data
        elif event.kind == END:
            client.ended = True
        elif event.kind == RESET:
            client.reset = client.ended = True
        self._send(client)

    def _serve(self, client: _Client, mask: int) -> None:
        gone = bool(mask & (select.POLLHUP | select.POLLERR))
        if mask & select.POLLOUT:
            self._send(client)
        if client.sock.fileno() < 0:
            return
        if client.reads:
            self._receive(client, gone)
        elif gone:
            self._drop(client)

    def _receive(self, client: _Client, gone: bool) -> None:
        """Read from a client: its greeting, then data, then the end.

        `gone` means that it has closed both directions. Then the connection is reset once its last
        bytes are sent, so that the guest stops writing to nobody.
        """
        try:
            room = self._multiplexer.room(client.number) if client.number else 1
            data = client.sock.recv(room) if room else b""
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        if not client.number:
            self._greet(client, data)
        elif data:
            self._multiplexer.send(client.number, data)
        elif room and gone and not client.ended:
            self._drop(client)
        elif room:
            client.reads = False
            self._multiplexer.end(client.number)
            self._close_if_over(client)

    def _greet(self, client: _Client, data: bytes) -> None:
        """Take one byte of the greeting: what follows its line belongs to the guest."""
        client.greeting += data
        if not data or len(client.greeting) > GREETING:
            self._drop(client)
        elif data == b"\n":
            word, _, port = client.greeting[:-1].partition(b" ")
            if word != b"CONNECT" or not port.isdigit() or int(port) >= 1 << 32:
                self._drop(client)
                return
            client.port = int(port)
            client.number = self._multiplexer.open(client.port)
            self._numbers[client.number] = client

    def _send(self, client: _Client) -> None:
        """Send to a client what it takes, and credit that to the guest."""
        try:
            while client.outgoing:
                sent = client.sock.send(client.outgoing)
                del client.outgoing[:sent]
                client.uncredited += sent
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        if client.uncredited > 0:
            self._multiplexer.consumed(client.number, client.uncredited)
            client.uncredited = 0
        if client.ended and not client.outgoing:
            if client.reset:
                self._drop(client)
                return
            try:
                client.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has closed its side
            self._close_if_over(client)

    def _close_if_over(self, client: _Client) -> None:
        if client.ended and not client.outgoing and not client.reads:
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        """Close a client, and its connection if that is not over."""
        self._clients.pop(client.sock.fileno(), None)
        client.sock.close()
        if client.number:
            self._numbers.pop(client.number, None)
            self._multiplexer.reset(client.number)
