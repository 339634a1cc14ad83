"""Standard streams: fifos whose reader is late or goes away, files, and what is refused."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.shim import streams
from innkeeper.shim.errors import CallError
from innkeeper.shim.streams import Input, Output
from tests.eventually import poll


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    yield path


def test_output_waits_for_its_reader(fifo: Path) -> None:
    written = threading.Event()

    def write() -> None:
        end = Output(str(fifo))
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
    end = Output(str(fifo))
    os.close(first)
    end.write(b"kept")
    second = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    end.close()
    assert os.read(second, 10) == b"kept"
    os.close(second)


def test_without_a_reader_it_fails(fifo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "READER_SECONDS", 0.0)
    with pytest.raises(OSError, match="No such device or address"):
        Output(str(fifo))


def test_logs_in_files_and_other_addresses(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before ")
    for target in (f"file://{path}", str(path)):
        end = Output(target)
        end.write(b"x")
        end.close()
    assert path.read_text() == "before xx"
    nothing = Output("")
    nothing.write(b"dropped")
    with pytest.raises(CallError, match="not to binary://"):
        Output("binary:///usr/bin/logger?a=b")


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
