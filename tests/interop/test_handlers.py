"""One image under three runtime handlers of one containerd: runc, gVisor, and our guest."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop import gvisor, test_shim
from tests.interop.node import Node
from tests.interop.pods import Pod
from tests.interop.running_node import running_node
from tests.interop.test_pods import INNKEEPER, RUNC, wait_for_line
from tests.interop.test_pods import make as make
from tests.needs import needs

pytestmark = [*test_shim.pytestmark, needs("go", "unshare")]
RUNSC = "runsc"


def three_handlers(folder: Path) -> Node:
    gvisor.configure(folder)
    return Node(folder, containerd=gvisor.HANDLER, programs=[gvisor.shim()])


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with running_node(three_handlers) as up:
        yield up


def test_each_handler_has_its_kernel(make: Callable[[str, str], Pod]) -> None:
    """All three pods are ready at once, and CRI lists each under its handler."""
    pods = {handler: make(f"kernel-{handler}", handler) for handler in (RUNC, RUNSC, INNKEEPER)}
    containers = {handler: pod.start("main", "uname -r; exec sleep 1000") for handler, pod in pods.items()}
    kernels = {handler: pods[handler].crictl("exec", id, "uname", "-r") for handler, id in containers.items()}
    listed = pods[RUNC].crictl("pods", "--state", "ready").splitlines()[1:]
    assert sorted(line.split()[-1] for line in listed) == sorted(pods)
    assert all(pod.ready() for pod in pods.values())
    assert kernels[RUNC] == os.uname().release
    assert kernels[RUNSC].endswith("-gvisor")
    assert "Starting gVisor..." in pods[RUNSC].crictl("exec", containers[RUNSC], "dmesg")
    assert kernels[INNKEEPER].endswith("-innkeeper")
    for handler, pod in pods.items():
        wait_for_line(pod, "main", kernels[handler])
