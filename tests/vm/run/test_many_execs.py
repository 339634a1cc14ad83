"""Many execs at once: whole output and own status for each, whatever a neighbour's reader does; nothing of them stays in the guest."""

import hashlib
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.eventually import eventually
from tests.images import busybox_image
from tests.vm.command import ARGV, PATIENCE, detached, environment, innkeeper, succeed

pytestmark = pytest.mark.vm

MANY = 16
LINES = 20_000
"""108,894 bytes: more than the pipe of a process takes, so that each needs its reader."""
STALLED_LINES = 600_000
"""4 MB: more than all that lies between a process and a reader that does not read."""
GAUGE = "ls /proc/1/fd | wc -l; wc -l </proc/1/mountinfo; ls /proc/1/task | wc -l"
"""Descriptors, mounts and threads of PID 1."""


@pytest.fixture(scope="module")
def box(start: str) -> Iterator[str]:
    """A container whose guest can be looked into."""
    with detached(busybox_image(), "sleep", "100000", options=["--debug-guest"]) as id:
        many(id, 4)  # what is imported and opened once, is there now
        yield id


def begin(*argv: str) -> "subprocess.Popen[bytes]":
    """Start a command of which this test is the only reader. Its streams have no buffers here."""
    pipe = subprocess.PIPE
    return subprocess.Popen([*ARGV, *argv], stdin=pipe, stdout=pipe, stderr=pipe, env=environment(), bufsize=0)


def numbers(count: int) -> bytes:
    """Return what seq(1) prints."""
    return b"".join([b"%d\n" % number for number in range(1, count + 1)])


def digest(data: bytes) -> str:
    """Return what stands for much data in an assertion."""
    return hashlib.sha256(data).hexdigest()


def many(box: str, count: int) -> None:
    """Run `count` execs at once that copy their input, print LINES lines and end with a status of their own."""
    script = f"cat; seq 1 {LINES}; echo err $1 >&2; exit $1"
    running = [begin("exec", "-i", box, "sh", "-c", script, "sh", str(number)) for number in range(count)]
    for number, process in enumerate(running):
        given = b"%d: " % number + bytes(200_000)
        out, err = process.communicate(given, timeout=PATIENCE)
        assert (process.returncode, err) == (number, b"err %d\n" % number)
        assert digest(out) == digest(given + numbers(LINES)), len(out)


def left(box: str) -> list[str]:
    """Return what PID 1 of the guest holds, and the container's processes."""
    return [*succeed("shell", box, "sh", "-c", GAUGE).split(), *succeed("ps", box).splitlines()]


def programs(box: str) -> int:
    """Return how many processes the container has."""
    return len(succeed("ps", box).splitlines()) - 1


def test_many_at_once_beside_readers_that_stop(box: str) -> None:
    before = left(box)
    stalled = [begin("exec", box, "sh", "-c", f"seq 1 {STALLED_LINES}; exit 9") for _ in range(2)]
    try:
        firsts = []
        for process in stalled:
            assert process.stdout is not None
            firsts.append(process.stdout.readline())
        assert firsts == [b"1\n", b"1\n"]
        many(box, MANY)
        assert programs(box) >= 3, "both still write"
        stalled[1].kill()
        out, err = stalled[0].communicate(timeout=PATIENCE)
        assert (stalled[0].returncode, err) == (9, b"")
        assert digest(firsts[0] + out) == digest(numbers(STALLED_LINES)), len(out)
    finally:
        for process in stalled:
            process.kill()
            process.communicate()
    eventually(lambda: left(box) == before, lambda: f"{before} became {left(box)}", PATIENCE)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_goes_ends_its_exec(box: str, stream: str) -> None:
    """As SIGPIPE would end a local program."""
    before = left(box)
    process = begin("exec", box, "sh", "-c", f"seq 1 {STALLED_LINES} >&{1 if stream == 'stdout' else 2}; sleep 1000")
    try:
        reader = process.stdout if stream == "stdout" else process.stderr
        assert reader is not None
        assert reader.readline() == b"1\n"
        reader.close()
        assert process.wait(PATIENCE) == 128 + signal.SIGPIPE
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    assert innkeeper("exec", box, "true").returncode == 0
    eventually(lambda: left(box) == before, lambda: f"{before} became {left(box)}", PATIENCE)
