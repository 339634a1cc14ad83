"""Whatever ends a run, nothing of it stays: no process, no socket, no file outside the cache; and a failure says what failed."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from innkeeper.vm import child_processes, registry
from tests.eventually import eventually
from tests.images import busybox_image
from tests.vm.command import ARGV, detached, environment, innkeeper, inspected, succeed

pytestmark = pytest.mark.vm


def _running(*options: str) -> tuple["subprocess.Popen[bytes]", str]:
    """A foreground run that has started its command, and its id."""
    argv = [*ARGV, "run", *options, busybox_image(), "sh", "-c", "echo ready; sleep 1000"]
    running = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n", running.communicate()[1].decode()
    (id,) = [entry["id"] for entry in json.loads(succeed("ps", "--json")) if entry["owner"] == running.pid]
    return running, id


def _await_no_process(folder: Path) -> None:
    eventually(lambda: not child_processes.orphans(folder), lambda: f"still running: {child_processes.orphans(folder)}")


def test_killing_the_command_line_ends_the_machine() -> None:
    running, id = _running("--rm")
    folder = next(record.folder for record in registry.list_vms() if record.id == id)
    running.kill()
    running.communicate()
    _await_no_process(folder)
    succeed("run", "--rm", busybox_image(), "true")  # the next run cleans
    assert not folder.exists()


def test_killing_qemu_is_told() -> None:
    running, id = _running()
    os.kill(next(record.state["pid"] for record in registry.list_vms() if record.id == id), signal.SIGKILL)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 125
    assert b"QEMU was killed by signal 9" in said
    assert b"Traceback" not in said
    record = inspected(id)
    assert (record["status"], "QEMU was killed" in record["error"]) == ("failed", True)
    succeed("rm", id)


def test_killing_the_keeper_ends_the_machine() -> None:
    with detached(busybox_image(), "sleep", "1000") as id:
        record = inspected(id)
        os.kill(record["owner"], signal.SIGKILL)
        _await_no_process(next(found.folder for found in registry.list_vms() if found.id == id))
        assert inspected(id)["status"] == "failed"


def test_a_failure_is_one_or_two_lines() -> None:
    for argv in ("run --rm oci-archive:/no/such.tar", f"run --rm -p 999999:1 {busybox_image()}", "exec nobody true"):
        done = innkeeper(*argv.split())
        assert done.returncode == 125
        lines = done.stderr.decode().strip().splitlines()
        assert lines[0].startswith("innkeeper: ") and len(lines) <= 2, lines
