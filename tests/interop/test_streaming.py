"""What CRI streams: a terminal of exec and of attach, and forwarded ports."""

import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest

from tests.interop import test_shim
from tests.interop.node import SECONDS
from tests.interop.pods import Pod
from tests.interop.test_pods import INNKEEPER, RUNC, wait_for_line
from tests.interop.test_pods import make as make
from tests.needs import needs

pytestmark = [*test_shim.pytestmark, needs("module:pexpect")]
WEB = "mkdir /tmp/www; echo a page > /tmp/www/index.html; echo serving; exec httpd -f -p 127.0.0.1:80 -h /tmp/www"
"""A server that only its own pod reaches: what a forwarded port is for."""


def terminal(pod: Pod, *words: str) -> "pexpect.spawn[str]":
    """crictl in a terminal of 40 lines of 120 characters."""
    program, *arguments = pod.argv(*words)
    return pexpect.spawn(program, arguments, dimensions=(40, 120), timeout=SECONDS, encoding="utf-8")


def use(shell: "pexpect.spawn[str]") -> None:
    """The size of the terminal arrives, and its changes; so does the signal of a key. What is typed is echoed, hence the quotes."""
    shell.sendline("until [ \"$(stty size)\" = '40 120' ]; do sleep 0.1; done; echo si''zed")
    shell.expect("sized\r\n")
    shell.setwinsize(50, 132)
    shell.sendline("until [ \"$(stty size)\" = '50 132' ]; do sleep 0.1; done; echo resi''zed")
    shell.expect("resized\r\n")
    shell.sendline("trap 'echo interr''upted' INT; echo re''ady; sleep 1000")
    shell.expect("ready\r\n")
    shell.sendcontrol("c")
    shell.expect("interrupted\r\n")


def test_exec_with_a_terminal(make: Callable[[str, str], Pod]) -> None:
    pod = make("terminal", INNKEEPER)
    shell = terminal(pod, "exec", "-it", pod.start("main", "exec sleep 1000"), "sh")
    use(shell)
    shell.sendline("tty; exit 7")
    shell.expect("/dev/pts/[0-9]+\r\n")
    shell.expect("exit code 7")
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 1  # crictl's own: it says the command's in words


def test_attach_to_a_terminal(make: Callable[[str, str], Pod]) -> None:
    pod = make("attached", INNKEEPER)
    id = pod.start("main", "exec sh", tty=True, stdin=True)
    shell = terminal(pod, "attach", "-it", id)
    use(shell)
    shell.sendline("exit 7")
    shell.expect(pexpect.EOF)
    shell.close()
    assert pod.exit_code(id) == 7


@contextmanager
def forwarded(pod: Pod, port: int, errors: Path) -> Iterator[str]:
    """The address on this host that `crictl port-forward` gives a port of the pod; what it says of errors goes into a file."""
    with (
        errors.open("wb") as file,
        subprocess.Popen(pod.argv("port-forward", pod.id, f":{port}"), stdout=subprocess.PIPE, stderr=file) as run,
    ):
        assert run.stdout is not None
        try:
            told = re.search(rb"Forwarding from (127\.0\.0\.1:[0-9]+) ->", run.stdout.readline())
            assert told, errors.read_text()
            yield told[1].decode()
        finally:
            run.terminate()


def test_forwarded_port_of_a_host_container(make: Callable[[str, str], Pod], tmp_path: Path) -> None:
    """The node forwards ports."""
    pod = make("forwarded-runc", RUNC)
    pod.start("web", WEB)
    wait_for_line(pod, "web", "serving")
    with forwarded(pod, 80, tmp_path / "errors") as address, urllib.request.urlopen(f"http://{address}/", timeout=60) as answer:
        assert answer.read() == b"a page\n"


def test_forwarded_port_of_a_guest(make: Callable[[str, str], Pod], tmp_path: Path) -> None:
    """No guest has one: containerd itself connects, on the host, to localhost of the pod's network namespace, and asks no shim."""
    pod = make("forwarded", INNKEEPER)
    pod.start("web", WEB)
    wait_for_line(pod, "web", "serving")
    errors = tmp_path / "errors"
    with forwarded(pod, 80, errors) as address, pytest.raises((urllib.error.URLError, ConnectionError)):
        urllib.request.urlopen(f"http://{address}/", timeout=60)
    assert f'failed to connect to localhost:80 inside namespace "{pod.id}"' in errors.read_text().replace("\\", "")


def test_port_of_a_guest_by_exec(make: Callable[[str, str], Pod]) -> None:
    """The way in that a guest has: a program of the container connects, and exec carries both directions.

    The input stays open: once it is closed, Kata's shim reads no further output (docs/kubernetes.md).
    """
    pod = make("by-exec", INNKEEPER)
    id = pod.start("web", WEB)
    wait_for_line(pod, "web", "serving")
    argv = pod.argv("exec", "-i", id, "nc", "127.0.0.1", "80")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        run.stdin.write(b"GET / HTTP/1.0\r\n\r\n")
        run.stdin.flush()
        head, page = run.stdout.read().split(b"\r\n\r\n")
        assert run.wait(SECONDS) == 0
    assert (head.split()[1], page) == (b"200", b"a page\n")
