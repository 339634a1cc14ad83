"""One Deployment and its Service, as users have them in examples/kubernetes, by each class: on runc, in gVisor, in our VMs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.eventually import eventually
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.marks import marks
from tests.kubernetes.report import LINES
from tests.kubernetes.running import deploy, undeploy
from tests.paths import ROOT

pytestmark = marks
NODE_KERNEL = os.uname().release
WELCOME = "Welcome to nginx"
TITLES = {
    "native": "runc",
    "gvisor": "gVisor",
    "sandboxed": "ours, cold",
    "template": "ours, from a template",
    "kata-containers": "ours, as kata-containers",
}


@dataclass
class Deployed:
    """The Deployment by one class. `kernels` are what its pods print, by name; `seconds` from apply to Available."""

    cluster: Cluster
    start: str
    seconds: float
    addresses: dict[str, str]
    kernels: dict[str, str]


@pytest.fixture(scope="module", params=list(TITLES))
def deployed(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Deployed]:
    """Apply the example by a class. `template` is the class `sandboxed` again, with a template that has been made."""
    start = str(request.param)
    if start == "template":
        make_template(cluster)
    class_name = "sandboxed" if start == "template" else start
    seconds = deploy(cluster, class_name)
    try:
        pods = cluster.get("pods", "-l", "app=nginx")["items"]
        assert {pod["spec"]["runtimeClassName"] for pod in pods} == {class_name}
        names = [pod["metadata"]["name"] for pod in pods]
        kernels = {name: cluster.kubectl("exec", name, "--", "uname", "-r").strip() for name in names}
        LINES.append(f"{TITLES[start]}: {seconds:.1f} s from apply to Available")
        LINES.extend(f"  {name}  class {class_name}  node {NODE_KERNEL}  pod {kernel}" for name, kernel in kernels.items())
        yield Deployed(cluster, start, seconds, {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods}, kernels)
    finally:
        undeploy(cluster, class_name)


def make_template(cluster: Cluster) -> None:
    """Make the template of the cluster's configuration, as an operator does."""
    argv = [sys.executable, "-m", "innkeeper.cli", "shim", "template", "--config", f"{cluster.folder}/shim.toml"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_each_pod_has_the_kernel_of_its_class(deployed: Deployed) -> None:
    assert len(deployed.kernels) == 2
    for kernel in deployed.kernels.values():
        if deployed.start == "native":
            assert kernel == NODE_KERNEL
        elif deployed.start == "gvisor":
            assert kernel != NODE_KERNEL
            assert not kernel.endswith("-innkeeper")
        else:
            assert kernel.endswith("-innkeeper")


def test_it_serves_at_each_address(deployed: Deployed) -> None:
    for address in deployed.addresses.values():
        assert WELCOME in deployed.cluster.page(f"http://{address}/")


def test_it_serves_by_the_endpoints_of_its_service(deployed: Deployed) -> None:
    """Read the EndpointSlices, as kube-proxy does, and through the API server's proxy, which picks one of the addresses."""

    def endpoints() -> set[str]:
        slices = deployed.cluster.get("endpointslices", "-l", "kubernetes.io/service-name=nginx")["items"]
        return {address for one in slices for point in one["endpoints"] or () for address in point["addresses"]}

    eventually(lambda: endpoints() == set(deployed.addresses.values()), lambda: (endpoints(), deployed.addresses))
    proxied = "/api/v1/namespaces/default/services/nginx:80/proxy/"
    eventually(lambda: WELCOME in deployed.cluster.try_kubectl("get", "--raw", proxied).stdout)


def test_vms_are_started_as_the_title_says(deployed: Deployed) -> None:
    """Whether the QEMU of each pod has loaded a template. There is none for other classes."""
    loaded = [b"-incoming" in (path / "cmdline").read_bytes().split(b"\0") for path in deployed.cluster.machines()]
    expected = {"sandboxed": [False, False], "template": [True, True], "kata-containers": [True, True]}
    assert loaded == expected.get(deployed.start, [])
