"""Terminals: over a console socket, and carried by the command itself."""

import array
import os
import socket
import threading
from pathlib import Path

import pexpect
import pytest

from tests.needs import needs
from tests.oci.kit import SECONDS, Bundle, Runtime, wait_for

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


def test_exec_sends_its_terminal(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    runtime("run", "-d", "-b", bundle.args("sleep", "1000").save("a"), "a")
    console = Console(tmp_path / "console.sock")
    runtime(
        "exec", "-d", "--tty", "--console-socket", console.path, "--pid-file", tmp_path / "pid", "a", "sh", "-c", "tty; exec sleep 1000"
    )
    assert console.read_until(b"\r\n") == b"/dev/pts/0\r\n"
    pid = int((tmp_path / "pid").read_text())
    os.write(console.master, b"\x03")
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
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
    assert "no standard stream is a terminal" in runtime.refuses("run", "-b", bundle.path, "b")
    assert runtime("list", "-q") == ""


def test_exec_carries_the_terminal(runtime: Runtime, bundle: Bundle) -> None:
    runtime("run", "-d", "-b", bundle.args("sleep", "1000").save("a"), "a")
    argv = runtime.argv("exec", "-t", "a", "sh")
    child = pexpect.spawn(argv[0], argv[1:], timeout=SECONDS, encoding="utf-8")
    child.sendline("tty; echo $((40 + 2))")
    child.expect_exact("/dev/pts/0\r\n42\r\n")
    child.sendline("sleep 2000")
    wait_for(lambda: "sleep 2000" in runtime("ps", "a"))
    child.sendcontrol("c")
    child.expect_exact("# ")
    child.sendline("exit 3")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 3
    runtime("delete", "-f", "a")
