"""Many pods: at once, and one after the other. What each costs is in `bench --only shim`."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.needs import needs
from tests.shim.node import Node, unchanged
from tests.shim.test_cri import OWN, address, page, running_pod
from tests.shim.test_cri import pytestmark as of_pods
from tests.shim.test_templates import is_clone

pytestmark = [*of_pods, needs("mke2fs")]
AT_ONCE, IN_A_ROW = 10, 100


@pytest.fixture(scope="module")
def template(daemon: Node) -> Iterator[Path]:
    """A template, so that the pods' VMs start in seconds."""
    yield daemon.make_template()


@pytest.fixture
def loaded(daemon: Node, template: Path) -> Iterator[Node]:
    """The node, which is afterwards as before."""
    with unchanged(daemon):
        yield daemon


def test_pods_at_once(loaded: Node) -> None:
    """All start from the template, each has an address of its own, and answers while the others are there."""
    names = [f"load-{number}" for number in range(AT_ONCE)]
    configurations = [_configuration(loaded, name) for name in names]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        pods = list(threads.map(lambda path: loaded.crictl("runp", "--runtime", "template", path).strip(), configurations))
        try:
            containers = list(threads.map(lambda pod, name, path: _start(loaded, pod, name, path), pods, names, configurations))
            hosts = list(threads.map(lambda container: loaded.crictl("exec", container, "uname", "-n").strip(), containers))
            assert hosts == names
            assert all(is_clone(loaded.pid_of_pod(pod)) for pod in pods)
            addresses = [json.loads(loaded.crictl("inspectp", pod))["status"]["network"]["ip"] for pod in pods]
            assert len(set(addresses)) == AT_ONCE
            first = loaded.crictl("exec", containers[0], "wget", "-qO", "-", f"http://{addresses[-1]}/")
            assert first == f"{names[-1]}\n"
        finally:
            list(threads.map(lambda pod: loaded.crictl("rmp", "--force", pod), pods))


def _configuration(node: Node, name: str) -> Path:
    linux = {"security_context": {"namespace_options": {"pid": OWN}}, "cgroup_parent": f"/{node.folder.name}"}
    metadata = {"name": name, "namespace": "default", "uid": name, "attempt": 1}
    path = node.folder / f"{name}-pod.json"
    path.write_text(json.dumps({"metadata": metadata, "hostname": name, "log_directory": str(node.folder), "linux": linux}))
    return path


def _start(node: Node, pod: str, name: str, configuration: Path) -> str:
    node.groups.add(("k8s.io", pod))
    script = "uname -n > /tmp/index.html; httpd -p 80 -h /tmp; sleep 1000"
    path = node.folder / f"{name}-container.json"
    linux = {"security_context": {"namespace_options": {"pid": OWN}}}
    document = {"metadata": {"name": name}, "image": {"image": "localhost/busybox:1"}, "linux": linux, "command": ["sh", "-c", script]}
    path.write_text(json.dumps(document))
    container = node.crictl("create", "--no-pull", pod, path, configuration).strip()
    node.crictl("start", container)
    return container


def test_pods_in_a_row(loaded: Node) -> None:
    for number in range(IN_A_ROW):
        with running_pod(loaded, f"row-{number}", "template") as pod:
            assert is_clone(loaded.pid_of_pod(pod.id))
            assert page(pod) == "from the pod\n"
            assert f"inet {address(pod)}/24" in pod.exec("ip", "address", "show", "eth0")
