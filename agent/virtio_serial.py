"""Serves the guest's ports over a virtio-serial port, on a host without vhost-vsock.

The device is one byte stream between PID 1 and the process of the host that owns the VM.
`innkeeper.wire.multiplexer` makes connections of it, and each of them becomes a pair of sockets, of
which the service of the port gets one. So the services do not know the difference: for a vsock
address `agent.loop.sockets.listen` gives them a socket on which these arrive.

The kernel lets one process open the port, and PID 1 keeps it open, so no container can reach the
stream, whatever devices it is given.
"""

import os

from agent import log, loop
from agent.loop import Fd, Socket, TaskCancelled
from agent.loop.sockets import connect_locally, receive, send_all
from innkeeper.wire.multiplexer import DATA, END, OPEN, RESET, RESUME, Event, Multiplexer, ProtocolError

DEV = "/dev"
DEVICE_SECONDS = 300.0
"""Seconds that the kernel may take to make the device.

The port is added when the host answers the driver, some milliseconds after the driver's start. A
busy host may take many seconds for that, and a guest that has given up cannot be reached any more.
"""
POLL_SECONDS = 0.005
READ_SIZE = 64 << 10
MAX_CONNECTIONS = 1024
HALF_CLOSE_SECONDS = 5.0
"""Seconds that a service may take to read what arrived before the host reset the connection."""
SHUT_WR = 1


async def serve_device() -> None:
    """Serve the port until the host closes it.

    A failure is logged: nothing reaches the guest then.
    """
    try:
        with loop.timeout(DEVICE_SECONDS):
            path = await _device()
        with Fd(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)) as port:
            await SerialPort(port).serve()
    except (OSError, TimeoutError, ProtocolError) as error:
        log.error(f"virtio-serial port: {error}", "rpc")


async def _device() -> str:
    """Return the path of the port, /dev/vportNp1, once the kernel has made it.

    N depends on the order of the VM's devices.
    """
    while True:
        for name in os.listdir(DEV):
            if name.startswith("vport") and name.endswith("p1"):
                return f"{DEV}/{name}"
        await loop.sleep(POLL_SECONDS)


class SerialPort:
    """Moves bytes between the port and the connections on it."""

    def __init__(self, port: Fd) -> None:
        self._port = port
        self._queued = loop.Event()
        self._progress = loop.Event()
        self.multiplexer = Multiplexer(host=False)
        self.connections: dict[int, _Connection] = {}

    async def serve(self) -> None:
        """Serve until the host closes the port. Raises OSError and ProtocolError."""
        self.multiplexer.announce()
        try:
            async with loop.TaskGroup() as group:
                group.spawn(self._write(), name="virtio-serial writer")
                while data := await self._read():
                    for event in self.multiplexer.receive_data(data):
                        self._handle(event)
                    self.wake()
                group.cancel()
        finally:
            for connection in list(self.connections.values()):
                await connection.task.stop()

    async def _read(self) -> bytes:
        while True:
            await loop.readable(self._port)
            try:
                return os.read(self._port.fileno(), READ_SIZE)
            except BlockingIOError:
                continue

    async def _write(self) -> None:
        while True:
            self._queued.clear()
            data = memoryview(self.multiplexer.data_to_send())
            if data:
                self.wake()
            while data:
                try:
                    data = data[os.write(self._port.fileno(), data) :]
                except BlockingIOError:
                    await loop.writable(self._port)
            if not self.multiplexer.outgoing:
                await self._queued.wait()

    def wake(self) -> None:
        """Wake the writer if something is queued, and every connection that waits for room.

        They wait for an event that is used once. With one that is cleared, the first of them that
        finds no room for itself would clear it before the next one has looked.
        """
        if self.multiplexer.outgoing:
            self._queued.set()
        progress, self._progress = self._progress, loop.Event()
        progress.set()

    async def room(self, number: int) -> int:
        """Wait until the connection may send, and return how many bytes."""
        while not (room := self.multiplexer.room(number)):
            await self._progress.wait()
        return room

    def _handle(self, event: Event) -> None:
        if event.kind == OPEN:
            self._open(event.connection, event.number)
        elif event.kind == RESUME:
            for old in self.connections.values():
                old.receive(Event(RESET, 0, 0))
        elif (connection := self.connections.get(event.connection)) is not None:
            connection.receive(event)

    def _open(self, number: int, port: int) -> None:
        """Connect to the listener of `port`, or refuse the connection."""
        try:
            if len(self.connections) >= MAX_CONNECTIONS:
                raise OSError(f"{MAX_CONNECTIONS} connections are open already")
            sock = connect_locally(port)
        except OSError as error:
            log.debug(f"connection to port {port} refused: {error}", "rpc")
            self.multiplexer.reset(number)
            return
        self.multiplexer.accept(number)
        self.connections[number] = _Connection(self, number, sock)


class _Connection:
    """A connection of the host and the socket to its service."""

    def __init__(self, port: SerialPort, number: int, sock: Socket) -> None:
        self._port = port
        self._number = number
        self._sock = sock
        self._arrived: list[bytes] = []
        self._news = loop.Event()
        self._ended = self._reset = self._gone = False
        self._sending = loop.spawn(self._to_host(), name="virtio-serial to host")
        self._lingering: loop.Task[None] | None = None
        self.task = loop.spawn(self._run(), name="virtio-serial connection")

    def receive(self, event: Event) -> None:
        """Take a frame of the host."""
        if event.kind == DATA:
            self._arrived.append(event.data)
        elif event.kind == END:
            self._ended = True
        elif event.kind == RESET and not self._reset:
            self._reset = True
            self._sending.cancel()
            self._lingering = loop.spawn(self._close_later(), name="virtio-serial linger")
        self._news.set()

    async def _close_later(self) -> None:
        """Close the socket of a service that does not read.

        That wakes the task that writes to it.
        """
        await loop.sleep(HALF_CLOSE_SECONDS)
        self._sock.close()

    async def _run(self) -> None:
        """Copy until both directions have ended or one has failed, then close the socket.

        A service that has closed its socket may have written before, so its bytes still go to the
        host. After a reset by the host the service gets what had arrived before.
        """
        try:
            try:
                await self._to_service()
            except OSError:
                pass  # the service has closed its socket
            await self._sending.wait()
        except TaskCancelled:
            pass  # reset by the host
        finally:
            await self._sending.stop()
            if self._lingering is not None:
                await self._lingering.stop()
            self._sock.close()
            del self._port.connections[self._number]
            self._port.multiplexer.reset(self._number)  # no effect if both directions have ended
            self._port.wake()

    async def _to_service(self) -> None:
        """Write to the socket what arrives, until the host ends or resets the connection.

        Raises OSError when the service has closed its socket.
        """
        while True:
            while self._arrived:
                data = self._arrived.pop(0)
                await send_all(self._sock, data)
                self._port.multiplexer.consumed(self._number, len(data))
                self._port.wake()
            if self._gone:
                raise ConnectionResetError
            if self._ended or self._reset:
                self._sock.shutdown(SHUT_WR)
                return
            self._news.clear()
            await self._news.wait()

    async def _to_host(self) -> None:
        """Send to the host what the service writes, until it ends its direction or is gone."""
        try:
            while data := await receive(self._sock, await self._port.room(self._number)):
                self._port.multiplexer.send(self._number, data)
                self._port.wake()
            self._port.multiplexer.end(self._number)
            self._port.wake()
        except OSError:
            self._gone = True
            self._news.set()
