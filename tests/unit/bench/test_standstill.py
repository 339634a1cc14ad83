"""What is said of a VM that a command waits for in vain."""

import subprocess
from pathlib import Path

from bench import standstill


def test_a_vm_that_works_and_says_something(tmp_path: Path) -> None:
    (tmp_path / "vsock").mkdir()
    (tmp_path / "vsock/7.console").write_bytes(b"\x1b[0mone\r\n" + b"line\r\n" * standstill.LINES + b"Kernel panic\r\n")
    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as busy:
        said = standstill.describe(tmp_path, 7, busy.pid, answered=True)
        busy.kill()
    agent, console, daemon = said.split("; ")
    assert agent.startswith("its agent has answered, and its QEMU uses ")
    assert not agent.endswith(" 0% of a processor")
    assert console == "console: line | line | line | line | Kernel panic"
    assert daemon == "vsock daemon: no output"


def test_a_qemu_that_has_ended(tmp_path: Path) -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    assert standstill.describe(tmp_path, 7, done.pid, answered=False).startswith("its agent has not answered yet, and its QEMU has ended; ")
