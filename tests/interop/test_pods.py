"""Pods of several containers, by CRI, in our guest."""

import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.interop.kubelet import volumes as volumes
from tests.interop.kubelet import write_map
from tests.interop.node import Node
from tests.interop.pods import Pod
from tests.interop.test_shim import pytestmark as pytestmark

INNKEEPER, RUNC = "innkeeper", "runc"
"""Runtime handlers of the node's containerd."""


@pytest.fixture
def make(node: Node) -> Iterator[Callable[[str, str], Pod]]:
    made: list[Pod] = []

    def make_one(name: str, handler: str) -> Pod:
        made.append(Pod(node, name, handler))
        return made[-1]

    yield make_one
    for pod in made:
        pod.remove()


def wait_for_line(pod: Pod, name: str, line: str) -> None:
    eventually(lambda: line in pod.log(name), lambda: pod.log(name))


def test_five_containers_of_a_pod(make: Callable[[str, str], Pod]) -> None:
    """Each serves a page; each is reached by the others over localhost and from the host. One floods its output meanwhile."""
    pod = make("five", INNKEEPER)
    flood = pod.start("flood", "while :; do head -c 1000000 /dev/zero | tr '\\0' '\\n'; done")
    containers = []
    for number in range(4):
        script = f"mkdir /tmp/www; echo page {number} > /tmp/www/index.html; echo serving; httpd -f -p 800{number} -h /tmp/www"
        containers.append(pod.start(f"web-{number}", script))
        wait_for_line(pod, f"web-{number}", "serving")
    for number, id in enumerate(containers):
        other = (number + 1) % 4
        assert pod.crictl("exec", id, "wget", "-q", "-O", "-", f"http://127.0.0.1:800{other}/") == f"page {other}"
        with urllib.request.urlopen(f"http://{pod.address()}:800{number}/", timeout=20) as answer:
            assert answer.read().decode() == f"page {number}\n"
    pod.crictl("stop", flood)
    assert pod.crictl("exec", "-i", containers[0], "sha256sum", data=b"").split()[0].startswith("e3b0c44298fc1c14")


def test_a_config_map_and_a_secret_through_the_share(make: Callable[[str, str], Pod], volumes: Path) -> None:
    """The shim has the agent copy these two, and gives it the options of the container's mounts; others come by the share itself."""
    kinds = ("configmap", "secret", "projected", "downward-api")
    folders = {kind: volumes / f"kubernetes.io~{kind}/settings" for kind in kinds}
    for kind, folder in folders.items():
        write_map(folder, "..2026_11_28_01_00_00.1", f"{kind} 1\n")
    pod = make("volumes", INNKEEPER)
    id = pod.start("main", "exec sleep 1000", [(folder, f"/{kind}") for kind, folder in folders.items()])
    read = ["exec", id, "cat", *(f"/{kind}/key" for kind in kinds)]
    assert pod.crictl(*read).splitlines() == [f"{kind} 1" for kind in kinds]
    for kind in ("configmap", "secret"):
        write_map(folders[kind], "..2026_11_28_02_00_00.2", f"{kind} 2\n")
    eventually(lambda: pod.crictl(*read).splitlines()[:2] == ["configmap 2", "secret 2"], every=0.5)
    assert pod.attempt("exec", id, "sh", "-c", "echo x > /configmap/key").returncode != 0
