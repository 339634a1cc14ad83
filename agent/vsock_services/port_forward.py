"""Connections to TCP ports of the guest's localhost, for a host that forwards ports of a pod.

The client writes the line `CONNECT PORT` and waits for one that begins with `OK`. From there on the
bytes are those of the connection. Programs in containers share the guest's network, so its
localhost is theirs. Only the host can connect (see `agent.loop.sockets.accept`).
"""

import _socket as socket
import errno
import os

from agent import log, loop
from agent.loop import Socket
from agent.loop.sockets import accept, receive, send_all

ADDRESSES = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
"""Tried in this order. A program may listen on one of them only."""
LINE_MAX = 32
LINE_SECONDS = 5.0
"""Seconds that a client may take for its line."""
CONNECT_SECONDS = 10.0
MAX_CONNECTIONS = 256
SHUT_WR = 1


class PortForward:
    """The service, and the number of its connections."""

    def __init__(self) -> None:
        self._open = 0

    async def serve(self, listener: Socket) -> None:
        """Serve each client in a task of its own, for ever."""
        while True:
            client = await accept(listener)
            if self._open >= MAX_CONNECTIONS:
                log.warn(f"{MAX_CONNECTIONS} forwarded connections are open already", "ports")
                client.close()
                continue
            self._open += 1
            loop.spawn(self._connection(client), name="forwarded connection")

    async def _connection(self, client: Socket) -> None:
        try:
            with client:
                await _attend(client)
        except (OSError, TimeoutError) as error:
            log.debug(f"forwarded connection: {error}", "ports")
        finally:
            self._open -= 1


async def _attend(client: Socket) -> None:
    """Connect one client and copy both ways. Raises OSError and TimeoutError."""
    with loop.timeout(LINE_SECONDS):
        line, data = await _line(client)
    try:
        port = requested(line)
        with loop.timeout(CONNECT_SECONDS):
            target = await _connect(port)
    except (ValueError, OSError, TimeoutError) as error:
        await send_all(client, f"ERROR {error}\n".encode())
        return
    with target:
        await send_all(client, b"OK\n")
        await send_all(target, data)
        answers = loop.spawn(_copy(target, client), name="forwarded answers")
        try:
            await _copy(client, target)
            await answers.wait()
        finally:
            await answers.stop()


async def _line(client: Socket) -> tuple[bytes, bytes]:
    """Return the first line and what came after it. Raises OSError."""
    data = b""
    while b"\n" not in data and len(data) <= LINE_MAX:
        more = await receive(client)
        if not more:
            break
        data += more
    line, _, rest = data.partition(b"\n")
    return line, rest


def requested(line: bytes) -> int:
    """Return the port that a line asks for. Raises ValueError."""
    word, _, number = line.partition(b" ")
    if word != b"CONNECT" or not number.isdigit() or len(number) > 5 or not 0 < int(number) < 1 << 16:
        raise ValueError("expected CONNECT and a port of 1 to 65535")
    return int(number)


async def _connect(port: int) -> Socket:
    """Return a connection to a port of localhost. Raises OSError, the first one."""
    failure: OSError | None = None
    for family, address in ADDRESSES:
        try:
            return await _connect_to(family, address, port)
        except OSError as error:
            failure = failure or error
    assert failure is not None
    raise failure


async def _connect_to(family: int, address: str, port: int) -> Socket:
    sock = Socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    try:
        number = sock.connect_ex((address, port))
        if number == errno.EINPROGRESS:
            await loop.writable(sock)
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
    except BaseException:
        sock.close()
        raise
    return sock


async def _copy(source: Socket, target: Socket) -> None:
    """Copy until the end of `source`, and pass that on. A failure ends both directions."""
    try:
        while data := await receive(source):
            await send_all(target, data)
        target.shutdown(SHUT_WR)
    except OSError:
        source.close()
        target.close()
