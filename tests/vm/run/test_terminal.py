"""`run -t` in a real terminal: size, resize, keys that mean signals, and the terminal as it was afterwards."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.images import busybox_image
from tests.needs import needs
from tests.vm.command import ARGV, environment, innkeeper

pytestmark = [pytest.mark.vm, needs("pty", "module:pexpect")]

PROMPT = "READY> "


@pytest.fixture
def shell() -> Iterator[Any]:
    import pexpect

    argv = [*ARGV[1:], "-q", "run", "-it", "--rm", "-e", f"PS1={PROMPT}", busybox_image(), "sh"]
    child = pexpect.spawn(sys.executable, argv, env=environment(), dimensions=(31, 97), timeout=120, encoding="utf-8")
    try:
        child.expect_exact(PROMPT)
        yield child
    finally:
        child.close(force=True)


def test_size_resize_keys_and_status(shell: Any) -> None:
    shell.sendline("tty; stty size")
    shell.expect(r"/dev/pts/0\r\n31 97\r\n")
    shell.expect_exact(PROMPT)

    shell.setwinsize(40, 120)
    shell.sendline("sleep 1; stty size")
    shell.expect(r"40 120\r\n")
    shell.expect_exact(PROMPT)

    shell.sendline("sh -c 'echo star''ted; sleep 1000'")
    shell.expect_exact("started\r\n")
    shell.sendcontrol("c")
    shell.expect_exact(PROMPT)
    shell.sendline("echo status $?")
    shell.expect(r"status 130\r\n")
    shell.expect_exact(PROMPT)

    shell.sendline("cat")
    shell.sendline("through")
    shell.expect(r"through\r\nthrough\r\n")
    shell.sendcontrol("d")
    shell.expect_exact(PROMPT)

    shell.sendline("(exit 7)")
    shell.expect_exact(PROMPT)
    shell.sendcontrol("d")
    shell.expect_exact(sys.modules["pexpect"].EOF)
    shell.wait()
    assert shell.exitstatus == 7


def test_the_terminal_is_as_it_was() -> None:
    import pexpect

    run = f"{' '.join(ARGV)} -q run -it --rm {busybox_image()} true"
    script = f'before=$(stty -g); {run}; [ "$before" = "$(stty -g)" ] && echo same'
    child = pexpect.spawn("/bin/sh", ["-c", script], env=environment(), timeout=120, encoding="utf-8")
    child.expect_exact("same")
    child.expect_exact(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_a_terminal_is_refused_where_there_is_none() -> None:
    done = innkeeper("run", "--rm", "-it", busybox_image(), "true")
    assert done.returncode == 125
    assert b"not a terminal" in done.stderr


def test_a_terminal_without_input_is_fine() -> None:
    done = innkeeper("-q", "run", "--rm", "-t", busybox_image(), "sh", "-c", "tty; echo aside >&2")
    assert (done.returncode, done.stdout) == (0, b"/dev/pts/0\r\naside\r\n")
