"""Passing a process's streams over connections of the host (the fd passthrough of runtime-rs).

The host opens one connection per stream before it asks for the process. It learns the port number
of its own end and names it in CreateContainer or ExecProcess. From then on the process's output
goes to the connection and its input comes from there, without a ttRPC call per read or write.
"""

from typing import TYPE_CHECKING

from agent import log, loop
from agent.errors import AgentError, Refused
from agent.loop import Socket
from agent.loop.sockets import BUFFER_SIZE, accept, receive, send_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent.container.process import ContainerProcess

CONNECT_SECONDS = 10.0
"""Seconds to wait for a connection that a request names and that has not been accepted yet."""
MAX_UNCLAIMED = 64
"""The number of connections kept that no request has named. The oldest is closed for a new one."""


def peer_port(client: Socket) -> int:
    """Return the port number of the client's end, 0 if it has none.

    For a unix socket this is the number after the last dash of the name that the client bound.
    """
    peer = client.getpeername()
    if isinstance(peer, tuple):
        return int(peer[1])
    name = peer.decode(errors="replace") if isinstance(peer, bytes) else str(peer)
    number = name.rpartition("-")[2]
    return int(number) if number.isdecimal() and len(number) <= 10 else 0


class Streams:
    """The three streams of a process. A stream that is not passed through is None."""

    def __init__(self, stdin: Socket | None, stdout: Socket | None, stderr: Socket | None) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr

    def connect(self, process: "ContainerProcess") -> None:
        """Start to copy between the connections and the process. Each stream ends on its own."""
        if self.stdin is not None:
            loop.spawn(_feed(self.stdin, process), name="stdin passed on")
        for client, read in ((self.stdout, process.stdio.read_stdout), (self.stderr, process.stdio.read_stderr)):
            if client is not None:
                loop.spawn(_drain(client, read), name="output passed on")

    def close(self) -> None:
        """Close the connections, for a process that could not be created."""
        for client in (self.stdin, self.stdout, self.stderr):
            if client is not None:
                client.close()


class Passthrough:
    """The host's connections that wait for a request that names them."""

    def __init__(self) -> None:
        self._unclaimed: dict[int, Socket] = {}
        self._arrived = loop.Event()

    async def serve(self, listener: Socket) -> None:
        """Accept connections until cancelled, then close those that were not claimed."""
        try:
            while True:
                self._add(await accept(listener))
        finally:
            for client in self._unclaimed.values():
                client.close()
            self._unclaimed.clear()

    def _add(self, client: Socket) -> None:
        """Keep a connection by its port. It replaces an older one of the same port."""
        port = peer_port(client)
        log.debug("stream dialled", "passfd", port=port)
        for old in [port] if port in self._unclaimed else list(self._unclaimed)[: len(self._unclaimed) + 1 - MAX_UNCLAIMED]:
            self._unclaimed.pop(old).close()
        if port:
            self._unclaimed[port] = client
            self._arrived.set()
        else:
            client.close()

    async def claim(self, stdin: int, stdout: int, stderr: int, terminal: bool) -> Streams:
        """Return the connections of the given ports, 0 for no connection.

        Waits up to CONNECT_SECONDS for all of them. Raises Refused if one is missing then, and for
        a port that is given twice or a standard error beside a terminal.
        """
        ports = [port for port in (stdin, stdout, stderr) if port]
        if len(set(ports)) != len(ports):
            raise Refused("stdin_port, stdout_port, stderr_port", "one port is given twice")
        if terminal and stderr:
            raise Refused("stderr_port", "a terminal has no standard error of its own")
        found: dict[int, Socket] = {}
        try:
            with loop.timeout(CONNECT_SECONDS):
                for port in ports:
                    found[port] = await self._claim(port)
        except BaseException as error:
            for client in found.values():
                client.close()
            if isinstance(error, TimeoutError):
                missing = next(port for port in ports if port not in found)
                raise Refused("stdin_port, stdout_port, stderr_port", f"nobody has connected from port {missing}") from None
            raise
        return Streams(found.get(stdin), found.get(stdout), found.get(stderr))

    async def _claim(self, port: int) -> Socket:
        while port not in self._unclaimed:
            self._arrived.clear()
            await self._arrived.wait()
        return self._unclaimed.pop(port)


async def _feed(client: Socket, process: "ContainerProcess") -> None:
    """Copy from the connection to the process's stdin, and pass on the end of the input.

    If the process closes its stdin the connection is closed.
    """
    try:
        while data := await receive(client):
            await process.stdio.write_stdin(data)
        process.stdio.close_stdin()
    except (OSError, AgentError) as error:
        log.debug(f"stdin of {process.exec_id}: {error}", "passfd")
    finally:
        client.close()


async def _drain(client: Socket, read: "Callable[[int], Awaitable[bytes]]") -> None:
    """Copy a process's output to the connection until its end.

    If the host closes the connection the output is read and discarded. Otherwise the process would
    block on a full pipe.
    """
    gone = False
    try:
        while data := await read(BUFFER_SIZE):
            if not gone:
                try:
                    await send_all(client, data)
                except OSError:
                    gone = True
    except AgentError:
        pass  # the process has been removed from its table
    finally:
        client.close()
