"""Terminals: over a console socket, and carried by the command itself."""

import array
import fcntl
import os
import selectors
import socket
import subprocess
import termios
import threading
from pathlib import Path

import pexpect
import pytest

from tests.eventually import eventually
from tests.needs import needs
from tests.oci.oci_helpers import SECONDS, Bundle, Runtime

pytestmark = [pytest.mark.root, needs("root", "cgroup2", "buildah", "mmdebstrap", "module:pexpect", "busybox")]


class Console:
    """The other end of a console socket, as conmon and containerd's shim are: takes one descriptor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._listener.settimeout(SECONDS)
        self.master = -1
        self.name = b""
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()

    def _receive(self) -> None:
        connection, _ = self._listener.accept()
        with connection, self._listener:
            data, ancillary, _, _ = connection.recvmsg(256, socket.CMSG_SPACE(4))
            self.name = data
            self.master = array.array("i", ancillary[0][2])[0]

    def read_until(self, end: bytes) -> bytes:
        """What the terminal gives, up to `end`."""
        self._thread.join()
        read = b""
        while not read.endswith(end):
            read += os.read(self.master, 4096)
        return read

    def close(self) -> None:
        """Hang up."""
        self._thread.join()
        os.close(self.master)


def test_create_sends_the_terminal(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.sh("tty; stty size; read line; echo got $line", terminal=True, consoleSize={"height": 33, "width": 77})
    assert "--console-socket" in runtime.refuses("create", "-b", bundle.save("a"), "a")
    console = Console(tmp_path / "console.sock")
    runtime("create", "-b", bundle.path, "--console-socket", console.path, "a")
    runtime("start", "a")
    assert console.read_until(b"77\r\n") == b"/dev/pts/0\r\n33 77\r\n"
    os.write(console.master, b"word\n")
    assert console.read_until(b"got word\r\n") == b"word\r\ngot word\r\n"
    assert console.name == b"/dev/ptmx"
    runtime.until("a", "stopped")
    console.close()
    runtime("delete", "a")


def test_run_sends_the_terminal(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """In the background: another process relays it."""
    bundle.sh("tty; read line; echo got $line", terminal=True)
    console = Console(tmp_path / "console.sock")
    runtime("run", "-d", "--console-socket", console.path, "-b", bundle.save("a"), "a")
    assert console.read_until(b"\r\n") == b"/dev/pts/0\r\n"
    os.write(console.master, b"word\n")
    assert console.read_until(b"got word\r\n") == b"word\r\ngot word\r\n"
    runtime.until("a", "stopped")
    console.close()
    assert "--console-socket" in runtime.refuses("run", "-d", "-b", bundle.path, "b")
    runtime("delete", "a")


def test_exec_sends_its_terminal(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    runtime("run", "-d", "-b", bundle.args("sleep", "1000").save("a"), "a")
    console = Console(tmp_path / "console.sock")
    runtime(
        "exec", "-d", "--tty", "--console-socket", console.path, "--pid-file", tmp_path / "pid", "a", "sh", "-c", "tty; exec sleep 1000"
    )
    assert console.read_until(b"\r\n") == b"/dev/pts/0\r\n"
    pid = int((tmp_path / "pid").read_text())
    os.write(console.master, b"\x03")
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    console.close()
    assert "--console-socket" in runtime.refuses("exec", "-d", "-t", "a", "true", status=255)
    assert "no terminal" in runtime.refuses("exec", "-d", "--console-socket", console.path, "a", "true", status=255)
    runtime("delete", "-f", "a")


def test_run_carries_the_terminal(runtime: Runtime, bundle: Bundle) -> None:
    bundle.sh('stty size; trap "stty size" WINCH; echo ready; until read line; do :; done; echo "got $line"; exit 6', terminal=True)
    argv = runtime.argv("run", "-b", bundle.save("a"), "a")
    child = pexpect.spawn(argv[0], argv[1:], dimensions=(30, 100), timeout=SECONDS, encoding="utf-8")
    child.expect_exact("30 100\r\n")
    child.expect_exact("ready\r\n")
    child.setwinsize(40, 120)
    child.expect_exact("40 120\r\n")
    child.sendline("word")
    child.expect_exact("got word\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 6
    assert "no standard stream is a terminal" in runtime.refuses("run", "-b", bundle.path, "b", start_new_session=True)
    assert runtime("list", "-q") == ""


def test_exec_carries_the_terminal(runtime: Runtime, bundle: Bundle) -> None:
    runtime("run", "-d", "-b", bundle.args("sleep", "1000").save("a"), "a")
    argv = runtime.argv("exec", "-t", "a", "sh")
    child = pexpect.spawn(argv[0], argv[1:], timeout=SECONDS, encoding="utf-8")
    child.sendline("tty; echo $((40 + 2))")
    child.expect_exact("/dev/pts/0\r\n42\r\n")
    child.sendline("sleep 2000")
    eventually(lambda: "sleep 2000" in runtime("ps", "a"))
    child.sendcontrol("c")
    child.expect_exact("# ")
    child.sendline("exit 3")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 3
    runtime("delete", "-f", "a")


def _output_of(argv: list[str], typed: bytes = b"", *, stdin: int | None = None, control: bool = False) -> tuple[bytes, int]:
    """What a command writes to a terminal of its own, and its status.

    `typed` is there before it starts. `stdin` takes the terminal's place as its input; `control`: all streams are elsewhere, and the
    terminal is only the one that controls it.
    """
    master, slave = os.openpty()
    os.write(master, typed)

    def begin() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    pipe = subprocess.PIPE if control else slave
    with subprocess.Popen(argv, stdin=slave if stdin is None else stdin, stdout=pipe, stderr=slave, preexec_fn=begin) as process:
        os.close(slave)
        seen = b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout.fileno() if process.stdout else master, selectors.EVENT_READ)
            while selector.select(SECONDS):
                try:
                    piece = os.read(next(iter(selector.get_map())), 4096)
                except OSError:
                    break
                if not piece:
                    break
                seen += piece
        os.close(master)
        return seen, process.wait(SECONDS)


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_the_end_of_input_is_no_byte(runtime: Runtime, bundle: Bundle, verb: str) -> None:
    """An end that was typed before the terminal was raw is passed on as what was typed, not as the kernel's mark for it, a NUL."""
    program = ["sh", "-c", "cat; echo end $?"]
    argv = _with_terminal(runtime, bundle, verb, program)
    for typed, said in ((b"\x04", b"end 0\r\n"), (b"one\n\x04", b"one\r\nend 0\r\n")):
        seen, status = _output_of(argv, typed)
        assert (b"\0" not in seen and b"^@" not in seen, seen.endswith(said), status) == (True, True, 0), seen
    runtime("delete", "-f", "a")


def _with_terminal(runtime: Runtime, bundle: Bundle, verb: str, program: list[str]) -> list[str]:
    """The command line that runs a program with a terminal, by either verb."""
    if verb == "run":
        return runtime.argv("run", "-b", bundle.args(*program, terminal=True).save("a"), "a")
    runtime("run", "-d", "-b", bundle.args("sleep", "1000").save("a"), "a")
    return runtime.argv("exec", "-t", "a", *program)


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_standard_input_that_is_no_terminal(runtime: Runtime, bundle: Bundle, tmp_path: Path, verb: str) -> None:
    """It is copied to the container's terminal, and nothing is written for its end; the terminal is standard output's, or /dev/tty."""
    (tmp_path / "in").write_text("typed\n")
    (tmp_path / "empty").touch()
    argv = _with_terminal(runtime, bundle, verb, ["sh", "-c", "stty -echo; echo ready; read line; echo got $line"])
    for control in (False, True):
        with open(tmp_path / "in", "rb") as file:
            seen, status = _output_of(argv, stdin=file.fileno(), control=control)
            assert (seen.endswith(b"got typed\r\n"), b"\0" in seen, status) == (True, False, 0), seen
    if verb == "run":
        bundle.sh("echo out", terminal=True).save("a")
    else:
        argv = runtime.argv("exec", "-t", "a", "sh", "-c", "echo out")
    for name in ("empty", "/dev/null"):
        with open(tmp_path / name, "rb") as file:
            assert _output_of(argv, stdin=file.fileno()) == (b"out\r\n", 0)
    runtime("delete", "-f", "a")
