"""Rounds of exec, close and cancel at random leave PID 1 of a guest as it was: 1,000 with --long, else a fifth."""

from pathlib import Path

import pytest

from tests.churn import GROWTH, ROUNDS, WARM, churn
from tests.eventually import eventually
from tests.images import busybox_image
from tests.needs import needs
from tests.vm.pod import Pod, booted

pytestmark = [pytest.mark.vm, needs("mke2fs", "busybox")]

GAUGE = """
ls /proc/1/fd | wc -l
wc -l </proc/1/mountinfo
ls /proc/1/task | wc -l
"""
"""Descriptors, mounts and threads of PID 1."""


def gauge(pod: Pod) -> tuple[str, ...]:
    """Return what PID 1 holds, and the processes of the container that it knows."""
    return (*pod.shell(GAUGE).split(), *(str(process.pid) for process in pod.agent.list_processes("box")))


def resident(pod: Pod) -> int:
    """Return the bytes of PID 1 that are resident."""
    return int(pod.shell("cut -d' ' -f2 /proc/1/statm")) * 4096


def test_rounds_leave_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    rounds = ROUNDS if request.config.getoption("--long") else ROUNDS // 5
    with booted(busybox_image(), tmp_path, "debug") as pod:
        pod.create("box", ["sleep", "100000"])
        churn(pod.address, WARM // 2, 1)
        eventually(lambda: len(pod.agent.list_processes("box")) == 1)
        before, memory = gauge(pod), resident(pod)
        churn(pod.address, rounds, 2)
        eventually(lambda: gauge(pod) == before, lambda: f"{before} became {gauge(pod)}")
        eventually(lambda: resident(pod) - memory < GROWTH, lambda: f"{memory} bytes became {resident(pod)}")
        pod.agent.remove_container("box")
