"""The log as a stream, for a host that dials its port (3.8 of Kata's contract): lines as they are, nothing else.

Lines wait for a reader up to MAX_WAITING bytes; then the oldest go, and the reader is told how many. Writing a line never waits.
"""

import socket

from agent import log, loop
from agent.loop.sockets import accept, send_all

MAX_WAITING = 1 << 20


class LogPort:
    """Takes the log's lines from now on; serves one reader after the other."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._lines: list[bytes] = []
        self._size = 0
        self._dropped = 0
        self._more = loop.Event()
        log.set_sink(self._take)
        loop.spawn(self._serve(), name="log port")

    def _take(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)
        while self._size > MAX_WAITING:
            self._size -= len(self._lines.pop(0))
            self._dropped += 1
        self._more.set()

    async def _serve(self) -> None:
        while True:
            client = await accept(self._listener)
            try:
                await self._copy(client)
            except OSError:
                pass  # the reader is gone; the next one gets what comes now
            finally:
                client.close()

    async def _copy(self, client: socket.socket) -> None:
        while True:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                await send_all(client, log.line("WARN", f"{dropped} lines dropped: nobody read them", "root", {}))
            while self._lines:
                line = self._lines.pop(0)
                self._size -= len(line)
                await send_all(client, line)
            self._more.clear()
            await self._more.wait()
