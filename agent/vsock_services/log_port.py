"""The log as a stream, for a host that connects to its port (3.8 of Kata's contract).

The stream consists of the log lines and nothing else. Up to MAX_WAITING bytes of lines wait for a
reader. Then the oldest lines are dropped, and a line in the stream gives the reader their number.
Writing a line never blocks.
"""

import select

from agent import log, loop
from agent.loop import Socket
from agent.loop.sockets import accept, receive, send_all

MAX_WAITING = 1 << 20
"""Bytes of lines that wait for a reader."""


class LogPort:
    """Collects the log lines from its creation on, and serves one reader after the other."""

    def __init__(self, listener: Socket) -> None:
        self._listener = listener
        self._lines: list[bytes] = []
        self._size = 0
        self._dropped = 0
        self._more = loop.Event()
        log.set_sink(self._take)

    def _take(self, line: bytes) -> None:
        """Keep a line, and drop the oldest ones if they take more than MAX_WAITING."""
        self._lines.append(line)
        self._size += len(line)
        while self._size > MAX_WAITING:
            self._size -= len(self._lines.pop(0))
            self._dropped += 1
        self._more.set()

    async def serve(self) -> None:
        """Serve one reader after the other, for ever."""
        while True:
            client = await accept(self._listener)
            try:
                await self._copy(client)
            except OSError:
                pass  # the reader is gone; the next one gets what it has not taken
            finally:
                client.close()

    async def _copy(self, client: Socket) -> None:
        """Send lines until the reader is gone, then raise OSError."""
        async with loop.TaskGroup() as group:
            group.spawn(_hung_up(client), name="log reader")
            while True:
                if self._dropped:
                    dropped = self._dropped
                    await send_all(client, log.line("WARN", f"{dropped} lines dropped: nobody read them", "root", {}))
                    self._dropped -= dropped
                while self._lines:
                    await self._send_first(client)
                self._more.clear()
                await self._more.wait()

    async def _send_first(self, client: Socket) -> None:
        """Send the oldest line. One that was not sent completely is kept for the next reader."""
        line = self._lines.pop(0)
        self._size -= len(line)
        try:
            await send_all(client, line)
        except BaseException:
            self._lines.insert(0, line)
            self._size += len(line)
            raise


async def _hung_up(client: Socket) -> None:
    """Raise ConnectionResetError when the reader has closed the connection.

    A reader that has only shut down its sending side still reads. POLLHUP tells the two apart: it
    is reported when both directions are closed.
    """
    while await receive(client):
        pass
    poll = select.poll()
    poll.register(client, select.POLLHUP)
    if poll.poll(0):
        raise ConnectionResetError
