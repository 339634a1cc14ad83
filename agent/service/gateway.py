"""gRPC: the port's connections, and the way back of the process that serves them.

grpcio starts threads and takes 40 MB, so it is never in PID 1. What it serves is a program of its own, `agent.gateway`, started by the
first connection. It listens on a unix socket; PID 1 splices each connection to it, and it calls PID 1 back by ttRPC, as any client
does. When it ends, however that happens, the next connection starts another.

Nothing in the guest but these two may speak to either: the sockets are root's alone, in a folder that no container's root has, and the
way back is open to the gateway's own process only (SO_PEERCRED). The port itself takes connections from the host only.
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
"""Further ones wait until one ends. A gRPC client has one for all of its calls."""


class Gateway:
    """The process, while there is one. `folder` is made, for the sockets; `answer` is what serves the agent's methods."""

    def __init__(self, folder: str, answer: "Callable[[Request], Answer]") -> None:
        self._folder = folder
        self._agent_socket = f"{folder}/agent.sock"
        self._grpc_socket = f"{folder}/grpc.sock"
        self._answer = answer
        self._process: gateway_process.Process | None = None
        self._dialling = Lock()
        self._way_back: Socket | None = None
        self._connections = 0
        self._fewer = Event()

    async def serve(self, port: Socket) -> None:
        """Take the port's connections for ever."""
        while True:
            while self._connections >= MAX_CONNECTIONS:
                self._fewer.clear()
                await self._fewer.wait()
            sock = await accept(port)
            self._connections += 1
            spawn(self._attend(sock), name="grpc connection")

    async def _attend(self, client: Socket) -> None:
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
        """A connection to the gateway, which is started if it is not there. One that does not listen any more is ended first."""
        async with self._dialling:
            process = await self._running()
            try:
                return _connect(self._grpc_socket)
            except ConnectionRefusedError:
                await process.kill()
            await self._running()
            return _connect(self._grpc_socket)

    async def _running(self) -> gateway_process.Process:
        if self._process is None or self._process.ended.is_set:
            self._open_way_back()
            _remove(self._grpc_socket)
            self._process = None
            self._process = await gateway_process.start([self._agent_socket, self._grpc_socket])
        return self._process

    def _open_way_back(self) -> None:
        """Once: listen for the gateway's calls."""
        if self._way_back is not None:
            return
        os.makedirs(self._folder, 0o700, exist_ok=True)
        _remove(self._agent_socket)
        mask = os.umask(0o177)
        try:
            self._way_back = listen(f"unix://{self._agent_socket}")
        finally:
            os.umask(mask)
        spawn(self._take_calls(self._way_back), name="gateway's calls")

    async def _take_calls(self, listener: Socket) -> None:
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
    """Who connected, as the kernel noted it then (`struct ucred`, socket(7))."""
    pid: int = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return pid


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
