"""What the command line makes of what it inherits: standard streams that are closed, signals that are ignored."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from innkeeper.engine import attach
from tests.paths import ROOT
from tests.vm.command import ARGV, environment

SHOW = """
import os, sys
from innkeeper.cli import open_standard_streams
open_standard_streams()
opened = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
print("out"), print("err", file=sys.stderr), sys.stdin.read()
os.write(opened, " ".join([str(opened > 2), *(os.readlink(f"/proc/self/fd/{n}") for n in map(int, sys.argv[2]))]).encode())
"""


@pytest.mark.parametrize("closed", ["0", "1", "2", "01", "02", "12", "012"])
def test_a_closed_stream_is_the_null_device_and_no_file_of_ours(closed: str, tmp_path: Path) -> None:
    shell = " ".join(f"{number}{'<' if number == '0' else '>'}&-" for number in closed)
    argv = ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-c", SHOW, str(tmp_path / "file"), closed]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env=environment(), timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text().split() == ["True", *["/dev/null"] * len(closed)]


@pytest.mark.parametrize("argv", [ARGV, [sys.executable, str(ROOT / "build.py")]], ids=["installed", "clone"])
def test_commands_run_without_standard_streams(argv: list[str], tmp_path: Path) -> None:
    env = {**environment(), "INNKEEPER_NO_INSTALL": "1"}
    for verb in (["ps"], ["ps", "--json"], ["inspect", "nobody"], ["--version"]):
        done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *argv, *verb], env=env, timeout=300, check=False)
        assert done.returncode == (125 if "nobody" in verb else 0), verb


@pytest.mark.parametrize("ignored", attach.FORWARDED, ids=lambda signum: signum.name)
def test_what_the_caller_ignores_stays_ignored(ignored: signal.Signals) -> None:
    """nohup(1), and shells without job control for what they start in their background."""

    class Process:
        def signal(self, signum: int) -> None:
            received.append(signum)

    received: list[int] = []
    before = signal.signal(ignored, signal.SIG_IGN)
    try:
        with attach._signals(Process(), tty=False) as pending:  # type: ignore[arg-type]  # of a process only this
            assert signal.getsignal(ignored) == signal.SIG_IGN
            os.kill(os.getpid(), ignored)
            other = next(signum for signum in attach.FORWARDED if signum != ignored)
            os.kill(os.getpid(), other)
            while not received:
                pass
            assert pending.empty()
        assert received == [other]
    finally:
        signal.signal(ignored, before)


def test_the_tests_own_children_have_the_usual_dispositions() -> None:
    """Also where they were started in a shell's background (`./build.py test &`): see tests/conftest.py."""
    script = "import signal; print([signal.getsignal(n) == signal.SIG_IGN for n in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)])"
    code = f"""
import signal, subprocess, sys
for n in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP): signal.signal(n, signal.SIG_IGN)
from tests import conftest
conftest._forget_ignored_signals()
sys.exit(subprocess.run([sys.executable, "-c", {script!r}]).returncode)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n")[0] == "[False, False, False]"
