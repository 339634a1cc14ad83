"""What is asked of a container that runs, through Kata's shim: limits, a terminal's size, statistics, events."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.eventually import eventually, pause
from tests.interop.node import IMAGE, RUNTIME, SECONDS, Node
from tests.interop.pods import Pod
from tests.interop.test_pods import INNKEEPER
from tests.interop.test_pods import make as make
from tests.interop.test_shim import pytestmark as pytestmark

OOM_TOPIC = "/tasks/oom"


@pytest.fixture
def sleeper(node: Node) -> Iterator[str]:
    """A container that only sleeps, by containerd's client; its id."""
    id = "sleeper"
    try:
        done = node.ctr("run", "--detach", *RUNTIME, f"{node.folder}/kata.toml", IMAGE, id, "sleep", "1000")
        assert done.returncode == 0, done.stderr
        yield id
    finally:
        node.ctr("task", "kill", "-s", "KILL", id)
        node.ctr("task", "rm", "-f", id)
        node.ctr("container", "rm", id)


def test_limits_are_changed_while_it_runs(make: Callable[[str, str], Pod]) -> None:
    pod = make("limits", INNKEEPER)
    id = pod.start("main", "exec sleep 1000")

    def limits() -> list[str]:
        files = [f"/sys/fs/cgroup/{name}" for name in ("memory.max", "cpu.max", "cpu.weight")]
        return pod.crictl("exec", id, "cat", *files).splitlines()

    before = limits()
    pod.crictl("update", "--memory", str(64 << 20), "--cpu-period", "100000", "--cpu-quota", "25000", "--cpu-share", "512", id)
    assert limits() != before
    assert limits() == [str(64 << 20), "25000 100000", "59"]  # 512 shares, by the conversion of 2025: 1024 are 100


def test_a_terminal_follows_its_window(node: Node, sleeper: str) -> None:
    """The size at the start, and the one after a change."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
    script = "stty size; read word; stty size; exit 3"
    argv = node.argv("task", "exec", "--tty", "--exec-id", "window", sleeper, "sh", "-c", script)
    seen = b""
    with subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True) as process:
        os.close(slave)

        def read_until(text: bytes) -> None:
            nonlocal seen
            while text not in seen:
                seen += os.read(master, 4096)

        read_until(b"31 97")
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 132, 0, 0))
        process.send_signal(signal.SIGWINCH)  # the kernel sends it only for a controlling terminal, which this one is not
        pause(2, "the signal and the size go through the shim to the guest, which tells nobody")
        os.write(master, b"go\n")
        read_until(b"50 132")
        assert process.wait(SECONDS) == 3
    os.close(master)


def test_statistics(node: Node, sleeper: str) -> None:
    done = node.ctr("task", "metrics", "--format", "json", sleeper)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert int(metrics["memory"]["usage"]["usage"]) > 0, metrics
    assert int(metrics["pids"]["current"]) == 1, metrics


def test_an_out_of_memory_kill_is_an_event(node: Node, tmp_path: Path) -> None:
    """Of a process that is not the first one: the container lives on, the node is told."""
    log = tmp_path / "events"
    with log.open("wb") as file, subprocess.Popen(node.argv("events"), stdout=file) as events:
        try:
            script = "dd if=/dev/zero of=/dev/null bs=100M count=1; echo survived"
            done = node.run("oom", "sh", "-c", script, options=("--rm", "--memory-limit", str(32 << 20)))
            assert done.stdout == "survived\n", done.stderr
            eventually(lambda: OOM_TOPIC in log.read_text(), log.read_text)
        finally:
            events.terminate()
    lines = [line for line in log.read_text().splitlines() if OOM_TOPIC in line]
    assert '"container_id":"oom"' in lines[0]
