"""Processes that outlive the one that starts them."""

import subprocess
import sys
from pathlib import Path

from innkeeper.vm import child_processes
from tests.eventually import eventually


def test_what_is_left_alone_is_reaped_when_it_ends() -> None:
    """In a program that goes on, such as one that uses the engine as a library."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    child_processes.leave(process)
    there = Path(f"/proc/{process.pid}")
    assert there.exists() and process.stdin is not None
    process.stdin.close()
    eventually(lambda: not there.exists(), "it has become a zombie")
