"""Standard streams: fifos whose reader is late or goes away, files, programs that take logs, and what is refused."""

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.shim import logger, streams
from innkeeper.shim.errors import CallError
from innkeeper.shim.process import Stdio
from innkeeper.shim.streams import Input, Output
from tests.descriptors import open_descriptors
from tests.eventually import eventually, poll


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    yield path


def opened(target: str) -> Output:
    """The standard output of a process, written to `target`."""
    first, *rest = streams.outputs(Stdio(stdout=target, terminal=True))
    assert not rest
    return first


def test_output_waits_for_its_reader(fifo: Path) -> None:
    written = threading.Event()

    def write() -> None:
        end = opened(str(fifo))
        end.write(b"hello")
        end.close()
        written.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert not poll(written.is_set, 0.1)
    assert fifo.read_bytes() == b"hello"
    thread.join()


def test_output_survives_a_reader_that_goes(fifo: Path) -> None:
    first = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    end = opened(str(fifo))
    os.close(first)
    end.write(b"kept")
    second = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    end.close()
    assert os.read(second, 10) == b"kept"
    os.close(second)


def test_without_a_reader_it_fails(fifo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "READER_SECONDS", 0.0)
    with pytest.raises(OSError, match="No such device or address"):
        opened(str(fifo))


def test_logs_in_files_and_other_addresses(tmp_path: Path) -> None:
    path = tmp_path / "the log"
    path.write_text("before ")
    for target in (f"file://{tmp_path}/the%20log", str(path)):
        end = opened(target)
        end.write(b"x")
        end.close()
    assert path.read_text() == "before xx"
    nothing = opened("")
    nothing.write(b"dropped")
    with pytest.raises(CallError, match="not to ftp://"):
        opened("ftp://host/log")


LOGGER = """#!/bin/sh
echo "$* $CONTAINER_ID $CONTAINER_NAMESPACE $HOME" > "$2.about"
exec 5>&-
cat <&3 > "$2.out" & cat <&4 > "$2.err"
wait
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "log ger"
    path.write_text(LOGGER)
    path.chmod(0o755)
    return path


def test_a_fifo_whose_second_descriptor_cannot_be_opened(fifo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is closed: its reader sees the end."""
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    open_ = os.open

    def fails_to_read(path: str, flags: int) -> int:
        if not flags & os.O_WRONLY:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return open_(path, flags)

    monkeypatch.setattr(os, "open", fails_to_read)
    with pytest.raises(OSError, match="Too many open files"):
        opened(str(fifo))
    assert os.read(reading, 1) == b""
    os.close(reading)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_program_takes_both_outputs(tmp_path: Path, program: Path, terminal: bool) -> None:
    before = open_descriptors()
    target = f"binary://{tmp_path}/log%20ger?to={tmp_path}/x&a=b+c&a=second&empty="
    ends = streams.outputs(Stdio(stdout=target, stderr="" if terminal else target, terminal=terminal, id="one", namespace="ours"))
    for end, data in zip(ends, (b"to stdout", b"to stderr"), strict=False):
        end.write(data)
        end.close()
        end.close()
    logger.finish()
    written = [(tmp_path / f"x.{name}").read_text() for name in ("about", "out", "err")]
    assert written == [f"to {tmp_path}/x a b c empty  one ours \n", "to stdout", "" if terminal else "to stderr"]
    assert open_descriptors() == before


def test_a_program_that_does_not_end_is_killed(tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logger, "END_SECONDS", 0.0)
    monkeypatch.setattr(logger, "TERM_SECONDS", 0.1)
    program.write_text("#!/bin/sh\ntrap '' TERM\nexec 5>&-\nwhile :; do read line; done\n")
    made = logger.Logger(f"binary://{program}", "one", "ours")
    for end in (made.stdout, made.stderr):
        os.close(end)
        made.closed()
    eventually(lambda: not Path(f"/proc/{made.pid}").exists())


def test_a_pipe_of_which_one_end_cannot_be_moved_leaves_none_open(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []

    def move(fd: int, command: int, argument: int) -> int:
        if moved:
            raise OSError(errno.EMFILE, "too many open files")
        moved.append(real(fd, command, argument))
        return moved[0]

    real = fcntl.fcntl
    monkeypatch.setattr(fcntl, "fcntl", move)
    before = open_descriptors()
    with pytest.raises(OSError, match="too many open files"), logger._pipe():
        raise AssertionError("not reached")
    assert open_descriptors() == before
    assert moved


def test_a_program_without_a_pidfd_is_ended(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing could wait for its end."""
    started: list[int] = []

    def pidfd_open(pid: int) -> int:
        started.append(pid)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    before = open_descriptors()
    with pytest.raises(OSError, match="Too many open files"):
        logger.Logger(f"binary://{program}", "one", "ours")
    assert not Path(f"/proc/{started[0]}").exists()
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("script", "message"),
    [("exit 1", "ended before it was ready"), ("exec sleep 100", "was not ready within 1 s"), (None, "no such logging program")],
)
def test_a_program_that_does_not_begin(program: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, message: str) -> None:
    monkeypatch.setattr(logger, "READY_SECONDS", 1 if script == "exec sleep 100" else 10)
    before = open_descriptors()
    program.write_text(f"#!/bin/sh\n{script}\n") if script else program.unlink()
    with pytest.raises(CallError, match=message):
        opened(f"binary://{program}")
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("stdout", "stderr", "message"),
    [
        ("binary://relative/program", "", "must be an absolute path"),
        ("binary:///etc/passwd", "binary:///etc/passwd", "is not executable"),
        ("binary:///bin/true", "/dev/null", "standard error cannot go to /dev/null"),
    ],
)
def test_programs_that_are_refused(stdout: str, stderr: str, message: str) -> None:
    with pytest.raises(CallError, match=message):
        streams.check(Stdio(stdout=stdout, stderr=stderr))


@pytest.mark.parametrize("held", [False, True])
def test_input_ends_with_its_writers_or_with_a_call(fifo: Path, held: bool) -> None:
    end = Input(str(fifo), held=held)
    writer = os.open(fifo, os.O_WRONLY)
    os.write(writer, b"x")
    assert os.read(end.descriptor, 10) == b"x"
    os.close(writer)
    if held:
        with pytest.raises(BlockingIOError):
            os.read(end.descriptor, 10)
        end.end()
    assert os.read(end.descriptor, 10) == b""
    end.close()
