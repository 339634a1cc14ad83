"""The debug console: a shell on each connection to a port, or on the console of the VM.

Release images have no shell, and the console then says so.
"""

import os
from typing import TYPE_CHECKING

from agent import log, loop
from agent.errors import AgentError
from agent.loop import Fd, Socket
from agent.loop.sockets import BUFFER_SIZE, accept, receive, send_all
from agent.pod.shell import SHELL, Shells

if TYPE_CHECKING:
    from agent.container.process import ContainerProcess

CONSOLE = "/dev/console"
RESTART_SECONDS = 1.0
"""Seconds until the shell on the console of the VM is started again."""
NO_SHELL = "This guest is a release image: it has no shell. Build one that has: ./build.py build --variant debug"
"""Text that a client gets from a release image."""
MAX_SHELLS = 16
"""Number of shells at one time, those of StartShell included."""


class DebugConsole:
    """Shells in the guest, with all of its rights."""

    def __init__(self, shells: Shells) -> None:
        self._shells = shells
        self._number = 0

    async def serve(self, listener: Socket) -> None:
        """Start a shell for each connection, for ever.

        A shell lives until it exits or its connection ends.
        """
        while True:
            client = await accept(listener)
            loop.spawn(self._connection(client), name="debug console")

    async def on_vm_console(self) -> None:
        """Run a shell on the console of the VM, and start a new one when it ends."""
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
        """Run a shell for one client. Raises OSError when the client is gone.

        If no shell can be started, the client gets the reason as its only line.
        """
        try:
            process = await self._start()
        except AgentError as error:
            await send_all(client, (str(error) if os.path.exists(SHELL) else NO_SHELL).encode() + b"\r\n")
            return
        typing = loop.spawn(_type(client, process), name="debug console input")
        try:
            while data := await process.stdio.read_stdout(BUFFER_SIZE):
                await send_all(client, data)
        finally:
            await loop.shield(self._end(typing, process))

    async def _end(self, typing: "loop.Task[None]", process: "ContainerProcess") -> None:
        await typing.stop()
        await self._shells.end(process)

    async def _start(self) -> "ContainerProcess":
        """Start a shell on a terminal and return its process. Raises AgentError."""
        if len(self._shells.processes) >= MAX_SHELLS:
            raise AgentError(f"{MAX_SHELLS} shells are open already")
        self._number += 1
        return await self._shells.start(f"console-{self._number}", terminal=True, size=(24, 80))


async def _type(client: Socket, process: "ContainerProcess") -> None:
    """Write the client's bytes to the shell. Kill the shell when the client is gone."""
    try:
        while data := await receive(client):
            await process.stdio.write_stdin(data)
    except (OSError, AgentError):
        pass  # the client or the shell is gone: both end it
    await process.kill()


async def _relay(console: Fd, pair: Socket) -> None:
    """Copy bytes between the device of the console and the connection of a shell.

    Returns when the console hangs up or the shell has ended.
    """
    os.set_blocking(console.fileno(), False)
    output = loop.spawn(_print(console, pair), name="console output")
    try:
        while True:
            await loop.readable(console)
            try:
                data = os.read(console.fileno(), BUFFER_SIZE)
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
    """Write the output of the shell to the console, until either of them is gone."""
    try:
        while data := await receive(pair):
            while data:
                try:
                    data = data[os.write(console.fileno(), data) :]
                except BlockingIOError:
                    await loop.writable(console)
    except OSError:
        return
