"""A cluster that runs, with the classes of examples/kubernetes, and the seconds that their Deployment takes in it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from tests import images
from tests.eventually import poll
from tests.interop import gvisor
from tests.kubernetes import groups
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.gvisor import gvisor_shim, write_configuration
from tests.kubernetes.holder import SYSCTLS, Holder
from tests.paths import ROOT
from tests.shim.containerds import of_go_module, runc_shim
from tests.shim.handlers import COPIES, EROFS, mkfs_erofs, share_nothing
from tests.shim.node import Node, leftovers

EXAMPLES = ROOT / "examples/kubernetes"
NGINX = "docker.io/library/nginx"
HANDLERS = """
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""
COPIED = "copies"
"""The class of pods without a shared folder, whose roots are disks of the erofs snapshotter."""


def _machine() -> set[str]:
    """Return what a cluster could change of the machine outside its namespaces: the node's interface, sysctls, fixed folders, mounts."""
    found = {f"interface {path.name}" for path in Path("/sys/class/net").glob("node0")}
    found |= {f"{name} = {Path('/proc/sys', name).read_text().strip()}" for name in SYSCTLS}
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    found |= {f"mount {mount}" for mount in mounts if mount.startswith(("/proc/sys/", "/var/l"))}
    return found | {f"folder {path}" for path in map(Path, ("/var/lib/kubelet", "/var/log/containers", "/var/log/pods")) if path.exists()}


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Context manager: one node with classes for runc, gVisor and our shim. After it nothing of it is left on the machine."""
    before = _machine()
    folder = Path(mkdtemp(prefix="ink-", dir="/run"))
    holder = Holder(folder)
    write_configuration(folder)
    programs = [gvisor_shim(), runc_shim(), mkfs_erofs()]
    configuration = HANDLERS + gvisor.HANDLER + EROFS + COPIES
    node = Node(folder, of_go_module(), configuration=configuration, programs=programs, inside=holder.argv())
    up = Cluster(folder, holder, node)
    try:
        up.up()
        node.settings(**node.values, templates=folder / "templates")
        nginx = images.nginx_image().removeprefix("oci-archive:")
        node.ctr("--namespace", "k8s.io", "image", "import", "--base-name", NGINX, nginx)  # the archive names its tag: nginx
        node.ctr("--namespace", "k8s.io", "image", "tag", f"{NGINX}:nginx", f"{NGINX}:latest")
        share_nothing(node)
        node.ctr("--namespace", "k8s.io", "image", "import", "--snapshotter", "erofs", folder / "image.tar")
        up.apply(EXAMPLES / "runtimeclasses.yaml", runtime_class(COPIED, COPIED))
        yield up
    finally:
        try:
            up.down()
        finally:
            holder.end()
            groups.remove(up.group)
    poll(lambda: not leftovers(node), 20, every=0.2)
    assert leftovers(node) == set()
    assert _machine() == before
    rmtree(folder)


def runtime_class(name: str, handler: str) -> dict[str, Any]:
    """Return a RuntimeClass."""
    return {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": handler}


def manifest(class_name: str) -> str:
    """Return the example's Deployment and Service, by a class."""
    text = (EXAMPLES / "nginx.yaml").read_text()
    assert text.count("runtimeClassName: sandboxed") == 1
    return text.replace("runtimeClassName: sandboxed", f"runtimeClassName: {class_name}")


def deploy(cluster: Cluster, class_name: str) -> float:
    """Apply the Deployment by a class. Return the seconds until it is Available: both its pods serve."""
    begin = time.monotonic()
    cluster.apply(manifest(class_name))
    cluster.wait("deployment/nginx", "condition=Available")
    return time.monotonic() - begin


def undeploy(cluster: Cluster, class_name: str) -> None:
    """Delete the Deployment, and wait until nothing of its pods is left."""
    cluster.kubectl("delete", "-f", "-", "--wait", input=manifest(class_name))
    cluster.kubectl("wait", "pod", "-l", "app=nginx", "--for=delete", "--timeout=120s")
