"""A shell for whoever debugs the guest: on a port, one a connection, or on the machine's console. Release images have none and say so."""

import os
from typing import TYPE_CHECKING

from agent import log, loop
from agent.errors import AgentError
from agent.loop import Fd, Socket
from agent.loop.sockets import CHUNK, accept, receive, send_all

if TYPE_CHECKING:
    from agent.container.process import ContainerProcess
    from agent.sandbox import Sandbox

CONSOLE = "/dev/console"
SHELL = "/bin/sh"
RESTART_SECONDS = 1.0
NO_SHELL = "This guest is a release image: it has no shell. Build one that has: ./build.py build --debug"
MAX_SHELLS = 16


class DebugConsole:
    """Shells of one guest, with all of its rights."""

    def __init__(self, sandbox: "Sandbox") -> None:
        self._sandbox = sandbox
        self._number = 0

    async def serve(self, listener: Socket) -> None:
        """A shell for each connection, until it or the connection ends."""
        while True:
            client = await accept(listener)
            loop.spawn(self._connection(client), name="debug console")

    async def on_machine(self) -> None:
        """A shell on the machine's own console, a new one when it ends."""
        while True:
            with Fd(os.open(CONSOLE, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)) as console:
                ours, theirs = loop.socket_pair()
                relay = loop.spawn(_relay(console, ours), name="console")
                try:
                    await self._connection(theirs)
                finally:
                    ours.close()
                    await relay.stop()
            await loop.sleep(RESTART_SECONDS)

    async def _connection(self, client: Socket) -> None:
        try:
            await self._talk(client)
        except OSError as error:
            log.debug(f"debug console: {error}")
        finally:
            client.close()

    async def _talk(self, client: Socket) -> None:
        try:
            process = await self._start()
        except AgentError as error:
            await send_all(client, (str(error) if os.path.exists(SHELL) else NO_SHELL).encode() + b"\r\n")
            return
        typing = loop.spawn(_type(client, process), name="debug console input")
        try:
            while data := await process.read_stdout(CHUNK):
                await send_all(client, data)
        finally:
            await typing.stop()
            await self._end(process)

    async def _start(self) -> "ContainerProcess":
        from agent.service.introspection import start_shell
        from innkeeper.wire.pb.guest_pb2 import StartShellRequest

        if len(self._sandbox.shell_processes) >= MAX_SHELLS:
            raise AgentError(f"{MAX_SHELLS} shells are open already")
        self._number += 1
        name = f"console-{self._number}"
        await start_shell(self._sandbox, StartShellRequest(exec_id=name, terminal=True, rows=24, columns=80))
        return self._sandbox.shell_processes[name]

    async def _end(self, process: "ContainerProcess") -> None:
        await process.kill()
        process.close()
        self._sandbox.shell_processes.pop(process.exec_id, None)


async def _type(client: Socket, process: "ContainerProcess") -> None:
    """What the client types; with its end the shell ends."""
    try:
        while data := await receive(client):
            await process.write_stdin(data)
    except (OSError, AgentError):
        pass  # one of the two is gone: the same end
    await process.kill()


async def _relay(console: Fd, pair: Socket) -> None:
    """Bytes between the console's device and a shell's connection."""
    os.set_blocking(console.fileno(), False)
    output = loop.spawn(_print(console, pair), name="console output")
    try:
        while True:
            await loop.readable(console)
            try:
                data = os.read(console.fileno(), CHUNK)
            except BlockingIOError:
                continue
            if not data:
                return
            await send_all(pair, data)
    except OSError:
        return  # the console hung up, or the shell has ended
    finally:
        await output.stop()


async def _print(console: Fd, pair: Socket) -> None:
    try:
        while data := await receive(pair):
            while data:
                try:
                    data = data[os.write(console.fileno(), data) :]
                except BlockingIOError:
                    await loop.writable(console)
    except OSError:
        return
