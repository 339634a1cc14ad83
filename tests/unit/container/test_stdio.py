"""A process's streams: closed under those who wait for them, and after the end of the process."""

import os

import pytest

from agent import loop
from agent.container import stdio as stdio_module
from agent.container.stdio import PIPE_SIZE, Stdio
from agent.errors import NotFound, WrongState
from agent.loop.task import running_loop

LIMIT = 20


def test_closing_standard_input_ends_a_write_that_waits() -> None:
    """CloseStdin while a WriteStdin is parked: the number is anybody's again, and works."""

    async def main() -> None:
        stdio = Stdio(False)
        writers = [loop.spawn(stdio.write_stdin(bytes(4 * PIPE_SIZE)), name="write") for _ in range(2)]
        await loop.sleep(0)
        before = os.listdir("/proc/self/fd")
        stdio.close_stdin()
        number = int((set(before) - set(os.listdir("/proc/self/fd"))).pop())
        sockets: list[loop.Socket] = []
        while number not in [sock.fileno() for sock in sockets]:
            sockets = [*loop.socket_pair(), *sockets]
        again = next(sock for sock in sockets if sock.fileno() == number)
        far = sockets[sockets.index(again) ^ 1]
        with loop.timeout(LIMIT):
            reader = loop.spawn(loop.readable(again), name="the next user")
            for writer in writers:
                with pytest.raises(WrongState, match="stdin is closed"):
                    await writer.wait()
            far.send(b"x")
            await reader.wait()
        with pytest.raises(WrongState):
            await stdio.write_stdin(b"x")
        for sock in sockets:
            sock.close()
        stdio.close()
        assert running_loop().descriptors._fds == {}

    before = os.listdir("/proc/self/fd")
    loop.run(main())
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("count", [1, 2])
def test_closing_ends_reads_that_wait(count: int) -> None:
    async def main() -> None:
        stdio = Stdio(False)
        reads = [loop.spawn(read(100), name="read") for read in (stdio.read_stdout, stdio.read_stderr) for _ in range(count)]
        await loop.sleep(0)
        stdio.close()
        with loop.timeout(LIMIT):
            assert [await read.wait() for read in reads] == [b""] * 2 * count
        with pytest.raises(NotFound):
            await stdio.read_stdout(1)

    loop.run(main())


def test_a_stream_that_a_grandchild_keeps_ends_after_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is read, then comes the end: for who waits already, and for who comes later."""
    monkeypatch.setattr(stdio_module, "DRAIN", 0.02)

    async def main() -> None:
        stdio = Stdio(False)
        waiting = loop.spawn(stdio.read_stderr(100), name="read")
        os.write(stdio.child_fds[1], b"last words")
        await loop.sleep(0)
        stdio.process_ended()
        with loop.timeout(LIMIT):
            assert await waiting.wait() == b""
            assert [await stdio.read_stdout(4), await stdio.read_stdout(100), await stdio.read_stdout(1)] == [b"last", b" words", b""]
        stdio.close()

    loop.run(main())


def test_a_read_that_is_given_up_leaves_the_other_readers_theirs() -> None:
    async def main() -> None:
        stdio = Stdio(False)
        first, second = (loop.spawn(stdio.read_stdout(100), name="read") for _ in range(2))
        await loop.sleep(0)
        await first.stop()
        os.write(stdio.child_fds[1], b"x")
        with loop.timeout(LIMIT):
            assert await second.wait() == b"x"
        stdio.close()

    loop.run(main())


def test_the_end_of_a_terminal_under_a_writer_and_a_reader() -> None:
    """Both wait for one descriptor."""

    async def main() -> None:
        stdio = Stdio(True)
        ours, far = loop.socket_pair()
        stdio.set_pty_master(ours.detach())
        write, read = loop.spawn(stdio.write_stdin(bytes(8 << 20)), name="write"), loop.spawn(stdio.read_stdout(1), name="read")
        await loop.sleep(0)
        stdio.close()
        with loop.timeout(LIMIT):
            with pytest.raises(WrongState):
                await write.wait()
            assert await read.wait() == b""
        far.close()

    loop.run(main())
