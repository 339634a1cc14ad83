"""Kata's shim, unmodified, with our kernel and our image, through containerd and CRI."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from tests.interop.node import IMAGE, RUNTIME, Node, leftovers, remaining_leftovers
from tests.needs import needs

pytestmark = [
    pytest.mark.interop,
    pytest.mark.vm,
    needs("shim", "go", "ctr", "cni", "ip", "iptables-save", "busybox", "mke2fs"),
]
MIB = 1 << 20


def test_smoke(node: Node) -> None:
    """The harness's own checks of a working guest: those that Kata's own agent passes."""
    done = node.harness("smoke")
    assert done.stdout.splitlines()[-1] == "19 passed, 0 failed", done.stdout + done.stderr


def test_pod(node: Node) -> None:
    """The same for a pod with a network, through CRI."""
    done = node.harness("pod")
    assert done.stdout.splitlines()[-1] == "8 passed, 0 failed", done.stdout + done.stderr


def test_it_is_our_kernel(node: Node) -> None:
    assert node.run("kernel", "uname", "-r").stdout.strip().endswith("-innkeeper")


def test_fifty_megabytes_of_input(node: Node, tmp_path: Path) -> None:
    data = bytes(range(256)) * (50 * MIB // 256)
    script = "head -c 52428800 | sha256sum"
    argv = node.argv("run", "--rm", *RUNTIME, f"{node.folder}/kata.toml", IMAGE, "input", "sh", "-c", script)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(data)
        process.stdin.flush()
        assert process.stdout.read().decode().split()[0] == hashlib.sha256(data).hexdigest()
        process.stdin.close()
        assert process.wait(60) == 0


def test_output_without_a_pause(node: Node) -> None:
    """A megabyte a second for a minute: every line, in order."""
    script = "i=0; while [ $i -lt 60 ]; do head -c 1048575 /dev/zero | tr '\\0' x; echo; i=$((i+1)); sleep 1; done"
    done = node.run("output", "sh", "-c", script)
    assert done.stdout == ("x" * (MIB - 1) + "\n") * 60


def test_killed_for_memory(node: Node) -> None:
    """The limit that containerd asks for is that of the group."""
    done = node.run("memory", "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1", options=("--rm", "--memory-limit", "16777216"))
    assert done.returncode == 137


def test_twenty_in_a_row_leave_nothing(node: Node) -> None:
    before = leftovers(node.folder)
    for number in range(20):
        assert node.run(f"row-{number}", "echo", str(number)).stdout == f"{number}\n"
    assert remaining_leftovers(node.folder, before) == set()
    assert node.ctr("container", "ls", "-q").stdout == ""
