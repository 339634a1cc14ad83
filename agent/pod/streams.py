"""Streams that the host has dialled before it asks for a process (runtime-rs's fd passthrough): each known by the host's port number.

The host connects once a stream, learns its own port number, and names it in CreateContainer or ExecProcess. From then on what the
process writes goes straight there, and what comes is its input: no call is made for it.
"""

from typing import TYPE_CHECKING

from agent import log, loop
from agent.errors import AgentError, Refused
from agent.loop import Socket
from agent.loop.sockets import CHUNK, accept, receive, send_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent.container.process import ContainerProcess

PATIENCE = 10.0
"""Seconds that a connection which a call names may still be on its way."""
MAX_UNCLAIMED = 64
"""Connections that no call has named; the oldest is closed for one more."""


def peer_port(client: Socket) -> int:
    """The port at the client's end; of a unix socket, the number after the last dash of the name it is bound to. 0: it has none."""
    peer = client.getpeername()
    if isinstance(peer, tuple):
        return int(peer[1])
    name = peer.decode(errors="replace") if isinstance(peer, bytes) else str(peer)
    number = name.rpartition("-")[2]
    return int(number) if number.isdecimal() and len(number) <= 10 else 0


class Streams:
    """Three streams of one process, None for those it has not."""

    def __init__(self, stdin: Socket | None, stdout: Socket | None, stderr: Socket | None) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr

    def couple(self, process: "ContainerProcess") -> None:
        """Copy from now on. Each stream ends by itself."""
        if self.stdin is not None:
            loop.spawn(_feed(self.stdin, process), name="stdin passed on")
        for client, read in ((self.stdout, process.read_stdout), (self.stderr, process.read_stderr)):
            if client is not None:
                loop.spawn(_drain(client, read), name="output passed on")

    def close(self) -> None:
        """No process has come into being for them."""
        for client in (self.stdin, self.stdout, self.stderr):
            if client is not None:
                client.close()


class Passthrough:
    """Connections of the host's that wait for the call that names them."""

    def __init__(self) -> None:
        self._unclaimed: dict[int, Socket] = {}
        self._arrived = loop.Event()

    async def serve(self, listener: Socket) -> None:
        """Accept for ever; at the end connections that nobody has claimed are closed."""
        try:
            while True:
                self._add(await accept(listener))
        finally:
            for client in self._unclaimed.values():
                client.close()
            self._unclaimed.clear()

    def _add(self, client: Socket) -> None:
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
        """The connections of these ports, 0 for none. Raises Refused."""
        ports = [port for port in (stdin, stdout, stderr) if port]
        if len(set(ports)) != len(ports):
            raise Refused("stdin_port, stdout_port, stderr_port", "one port is given twice")
        if terminal and stderr:
            raise Refused("stderr_port", "a terminal has no standard error of its own")
        found: dict[int, Socket] = {}
        try:
            with loop.timeout(PATIENCE):
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
    """Input until its end, which is the process's end of input. A process that reads no more ends the connection."""
    try:
        while data := await receive(client):
            await process.write_stdin(data)
        process.close_stdin()
    except (OSError, AgentError) as error:
        log.debug(f"stdin of {process.exec_id}: {error}", "passfd")
    finally:
        client.close()


async def _drain(client: Socket, read: "Callable[[int], Awaitable[bytes]]") -> None:
    """Output until its end. When nobody takes it any more it is thrown away, so that the process does not stand still."""
    gone = False
    try:
        while data := await read(CHUNK):
            if not gone:
                try:
                    await send_all(client, data)
                except OSError:
                    gone = True
    except AgentError:
        pass  # the process is forgotten
    finally:
        client.close()
