"""The log's port: what one reader has not taken, the next one gets."""

import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent import log, loop
from agent.loop.sockets import listen, receive
from agent.vsock_services import log_port
from agent.vsock_services.log_port import LogPort

LIMIT = 20


def with_port(path: Path, body: Callable[[Callable[[], loop.Socket]], Coroutine[Any, Any, None]]) -> None:
    """Run `body` with a function that connects one more reader."""
    readers: list[loop.Socket] = []

    def connect() -> loop.Socket:
        reader = socket.socket(socket.AF_UNIX)
        reader.connect(str(path))
        readers.append(loop.Socket.of(reader))
        return readers[-1]

    async def main() -> None:
        with listen(f"unix://{path}") as listener:
            serving = loop.spawn(LogPort(listener).serve(), name="log port")
            try:
                with loop.timeout(LIMIT):
                    await body(connect)
            finally:
                await serving.stop()
                for reader in readers:
                    reader.close()

    loop.run(main())


@pytest.fixture(autouse=True)
def own_sink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_sink", None)


async def lines_until(reader: loop.Socket, last: bytes) -> bytes:
    data = b""
    while last not in data or not data.endswith(b"\n"):
        piece = await receive(reader)
        assert piece, data
        data += piece
    return data


@pytest.mark.parametrize("half_closed", [False, True])
def test_the_line_after_a_reconnection_is_not_lost(tmp_path: Path, half_closed: bool) -> None:
    async def body(connect: Callable[[], loop.Socket]) -> None:
        first = connect()
        log.error("one")
        await lines_until(first, b'"one"')
        if half_closed:
            first.shutdown(socket.SHUT_WR)
            log.error("two")
            await lines_until(first, b'"two"')
        first.close()
        second = connect()
        if not half_closed:
            await loop.sleep(0.01)
        log.error("three")
        assert (await lines_until(second, b'"three"')).count(b"\n") == 1

    with_port(tmp_path / "log", body)


def test_a_new_reader_is_served_although_nothing_is_logged_after_the_old_one(tmp_path: Path) -> None:
    """What the first has not taken is kept, in order, and is not sent twice."""

    async def body(connect: Callable[[], loop.Socket]) -> None:
        first = connect()
        log.error("first")
        await lines_until(first, b'"first"')
        for number in range(20):
            log.error(f"line {number}")
        first.close()
        second = connect()
        data = await lines_until(second, b'"line 19"')
        numbers = [number for number in range(20) if b'"line %d"' % number in data]
        assert numbers == list(range(20 - len(numbers), 20))
        assert data.count(b"\n") == len(numbers)

    with_port(tmp_path / "log", body)


def test_how_many_were_dropped_is_told_to_whoever_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_port, "MAX_WAITING", 1000)

    async def body(connect: Callable[[], loop.Socket]) -> None:
        for number in range(100):
            log.error(f"line {number}")
        data = await lines_until(connect(), b'"line 99"')
        kept = data.count(b'"line ')
        assert b"%d lines dropped" % (100 - kept) in data

    with_port(tmp_path / "log", body)
