"""The gRPC port: its connections, and the socket on which the gateway calls the agent.

grpcio starts threads and takes 40 MB, so it is never loaded into PID 1. A program of its own,
`agent.gateway`, serves gRPC. The first connection starts it. It listens on a unix socket, and PID
1 splices each connection to that socket. For each gRPC call it calls PID 1 by ttRPC, as any other
client does. When it ends, for whatever reason, the next connection starts another one.

No other process in the guest may speak to either of the two. The sockets belong to root, in a
folder that is not part of the root file system of any container. The agent's socket accepts only
the process of the gateway, which the kernel names (SO_PEERCRED). The port itself accepts
connections from the host only.
"""

import _socket as socket
import os
import struct
from typing import TYPE_CHECKING

from agent import log
from agent.errors import AgentError
from agent.loop import Event, Lock, Socket, spawn
from agent.loop.sockets import accept, listen
from agent.service import gateway_process
from agent.service.relay import relay
from agent.service.server import Answer, Peer
from innkeeper.wire.grpc import MAX_FRAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from innkeeper.wire.envelope import Request

MAX_CONNECTIONS = 256
"""Connections at one time. Further ones wait until one ends.

A gRPC client uses one connection for all of its calls.
"""


class Gateway:
    """Starts the gateway's process when it is needed, and passes connections on to it.

    `folder` is created and holds the sockets. `answer` serves the methods of the agent.
    """

    def __init__(self, folder: str, answer: "Callable[[Request], Answer]") -> None:
        self._folder = folder
        self._agent_socket = f"{folder}/agent.sock"
        self._grpc_socket = f"{folder}/grpc.sock"
        self._answer = answer
        self._process: gateway_process.Process | None = None
        self._start_lock = Lock()
        self._agent_listener: Socket | None = None
        self._connections = 0
        self._fewer = Event()

    async def serve(self, port: Socket) -> None:
        """Accept connections of the port for ever."""
        while True:
            while self._connections >= MAX_CONNECTIONS:
                self._fewer.clear()
                await self._fewer.wait()
            sock = await accept(port)
            self._connections += 1
            spawn(self._attend(sock), name="grpc connection")

    async def _attend(self, client: Socket) -> None:
        """Pass the bytes of one connection on until it ends, and log its errors."""
        try:
            server = await self._dial()
            try:
                await relay(client, server)
            finally:
                server.close()
        except (OSError, AgentError, TimeoutError) as error:
            log.error(f"connection closed: {error}", "grpc")
        finally:
            client.close()
            self._connections -= 1
            self._fewer.set()

    async def _dial(self) -> Socket:
        """Return a connection to the gateway, starting it if it does not run.

        A gateway that runs but does not listen any more is killed first. The lock keeps
        connections that come at the same time from starting two of them. Raises OSError,
        TimeoutError or GatewayFailed.
        """
        async with self._start_lock:
            process = await self._running()
            try:
                return _connect(self._grpc_socket)
            except ConnectionRefusedError:
                await process.kill()
            await self._running()
            return _connect(self._grpc_socket)

    async def _running(self) -> gateway_process.Process:
        """Return the process of the gateway, and start it if there is none or it has ended.

        The socket of an earlier process is removed first, because bind(2) fails for an existing
        path.
        """
        if self._process is None or self._process.ended.is_set:
            self._listen_for_gateway()
            _remove(self._grpc_socket)
            self._process = None
            self._process = await gateway_process.start([self._agent_socket, self._grpc_socket])
        return self._process

    def _listen_for_gateway(self) -> None:
        """Listen for the gateway's calls. Does nothing if this has been done.

        The umask gives the socket the mode 0600 when bind(2) creates it, so there is no moment at
        which another user could connect.
        """
        if self._agent_listener is not None:
            return
        os.makedirs(self._folder, 0o700, exist_ok=True)
        _remove(self._agent_socket)
        mask = os.umask(0o177)
        try:
            self._agent_listener = listen(f"unix://{self._agent_socket}")
        finally:
            os.umask(mask)
        spawn(self._serve_gateway(self._agent_listener), name="gateway's calls")

    async def _serve_gateway(self, listener: Socket) -> None:
        """Serve the calls of the gateway for ever, and close every other connection."""
        while True:
            sock = await accept(listener)
            pid = _peer_pid(sock)
            if self._process is not None and pid == self._process.pid:
                spawn(Peer(sock, self._answer, MAX_FRAME).run(), name="gateway's call")
            else:
                log.error(f"process {pid} is not the gateway: refused", "grpc")
                sock.close()


def _connect(path: str) -> Socket:
    sock = Socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _peer_pid(sock: Socket) -> int:
    """Return the pid of the process that connected.

    The kernel recorded it at the time of connect(2): `struct ucred`, socket(7).
    """
    pid: int = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return pid


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
