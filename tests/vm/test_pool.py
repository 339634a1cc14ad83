"""Containers in VMs of the pool: as in any VM, and gone with whoever claimed them, or with the pool."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from innkeeper.paths import pool_socket
from innkeeper.vm import child_processes, pooled, registry
from tests.eventually import eventually, retry
from tests.images import busybox_image, python_image
from tests.vm.command import ARGV, detached, environment, innkeeper, inspected, succeed

pytestmark = pytest.mark.vm

POOLED = ("run", "--rm", "--start", "pool")
SECONDS = 300.0
"""A template may have to be made first."""


@contextmanager
def pool(size: int) -> Iterator["subprocess.Popen[bytes]"]:
    running = subprocess.Popen([*ARGV, "pool", "-n", str(size)], stderr=subprocess.PIPE, env=environment())
    try:
        idle(size, running)
        yield running
    finally:
        running.terminate()
        _, said = running.communicate(timeout=60)
    assert not pool_socket().exists(), said.decode()
    assert not owned_by(running)


def owned_by(process: "subprocess.Popen[bytes]") -> list[registry.Record]:
    return [record for record in registry.list_vms() if record.alive and record.state["owner"] == process.pid]


def status() -> dict[str, Any]:
    known = pooled.status()
    assert known is not None
    return known


def idle(size: int, running: "subprocess.Popen[bytes]") -> None:
    def enough() -> bool:
        assert running.poll() is None, "the pool has ended"
        known = pooled.status()
        return known is not None and known["idle"] == size

    eventually(enough, lambda: str(pooled.status()), SECONDS)


def test_eight_at_once_from_two() -> None:
    """Each gets a VM of the pool or a template, and its own output."""
    with pool(2), ThreadPoolExecutor(8) as runs:
        said = list(runs.map(lambda n: succeed("run", "--rm", "--start", "auto", busybox_image(), "echo", str(n)), range(8)))
    assert said == [f"{n}\n" for n in range(8)]


def test_a_pool_that_is_killed_takes_its_vms_along() -> None:
    with pool(1) as running:
        folders = [record.folder for record in owned_by(running)]
        assert len(folders) == 1
        running.kill()
        running.wait()
        eventually(lambda: not child_processes.orphans(folders[0]), "its VM runs on")
        done = innkeeper("run", "--rm", "--start", "auto", busybox_image(), "echo", "it ran")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"it ran\n", b"")
        assert not folders[0].exists()
        pool_socket().unlink()


@pytest.fixture(scope="module")
def one() -> Iterator["subprocess.Popen[bytes]"]:
    """A pool of one VM, for the tests from here on: a user has one pool. Each waits for its VM itself."""
    with pool(1) as running:
        yield running


def test_different_images_one_after_the_other(one: "subprocess.Popen[bytes]") -> None:
    for image, command, output in (
        (busybox_image(), ("sh", "-c", "echo shell; cat /proc/sys/kernel/random/boot_id"), "shell"),
        (python_image(), ("python3", "-c", "print('snake'); print(open('/proc/sys/kernel/random/boot_id').read())"), "snake"),
        (busybox_image(), ("sh", "-c", "echo shell; ls /usr/bin/python3"), "shell"),
    ):
        idle(1, one)
        done = innkeeper(*POOLED, image, *command)
        assert done.stdout.decode().split()[0] == output, done.stderr.decode()
        assert done.returncode == (0 if "random" in command[-1] else 1)


def test_exit_status_input_and_space(one: "subprocess.Popen[bytes]") -> None:
    idle(1, one)
    script = "read line; echo got $line; dd if=/dev/zero of=/big bs=1M count=100 2>/dev/null; df -m / | tail -1; exit 7"
    done = innkeeper(*POOLED, "-i", "--scratch", "300m", busybox_image(), "sh", "-c", script, data=b"some words\n")
    said, space = done.stdout.decode().splitlines()
    assert (done.returncode, said) == (7, "got some words"), done.stderr.decode()
    assert 150 < int(space.split()[1]) <= 300


def test_identities_differ(one: "subprocess.Popen[bytes]") -> None:
    """Of VMs of one template, though each guest has been given one before it was claimed."""
    answers = []
    script = "cat /proc/sys/kernel/random/uuid /sys/class/net/eth0/address; head -c 16 /dev/urandom | base64; hostname"
    for _ in range(2):
        idle(1, one)
        answers.append(succeed(*POOLED, busybox_image(), "sh", "-c", script).split())
    assert not set(answers[0]) & set(answers[1])
    assert len(answers[0]) == 4


def test_ports_and_other_processes(one: "subprocess.Popen[bytes]") -> None:
    """`inspect`, `exec` and `logs` reach the container, and its port."""
    idle(1, one)
    server = "echo started; while true; do echo served | nc -l -p 80; done"
    with detached(busybox_image(), "sh", "-c", server, options=("--start", "pool", "-p", "127.0.0.1::80")) as id:
        document = inspected(id)
        assert document["machine"]["start"]["from"] == "pool"
        assert succeed("exec", id, "hostname").strip() == id
        assert succeed("logs", id) == "started\n"
        port = int(document["machine"]["forwards"][0].split("->")[0].rpartition(":")[2])

        def served() -> bytes:
            with socket.create_connection(("127.0.0.1", port), 10) as sock:
                if answer := sock.recv(100):
                    return answer
            raise ConnectionError("the host's end accepts, but nothing listens in the guest")

        assert retry(served, OSError) == b"served\n"
    with socket.create_server(("127.0.0.1", port)):
        pass  # it is free again


def started() -> tuple["subprocess.Popen[bytes]", int]:
    """A run that has started its command in a VM of the pool, and the process id of its QEMU."""
    argv = [*ARGV, *POOLED, busybox_image(), "sh", "-c", "echo ready; sleep 1000"]
    run = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert run.stdout is not None
    assert run.stdout.readline() == b"ready\n", run.communicate()[1].decode()
    (record,) = owned_by(run)
    return run, int(record.state["pid"])


def test_a_run_that_is_killed_ends_its_vm(one: "subprocess.Popen[bytes]") -> None:
    idle(1, one)
    run, pid = started()
    assert status()["claimed"] == 1
    run.kill()
    run.communicate()
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), "its VM runs on")
    idle(1, one)
    assert status()["claimed"] == 0


def test_the_end_of_the_vm_is_said(one: "subprocess.Popen[bytes]") -> None:
    idle(1, one)
    run, pid = started()
    os.kill(pid, signal.SIGKILL)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 125
    assert "QEMU was killed by signal 9" in said.decode()
