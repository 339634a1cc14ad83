"""How pods in VMs end, are replaced, placed, refused, and outlive what started them."""

import os
import signal
from typing import Any

import pytest

from tests.eventually import eventually
from tests.kubernetes.cluster import DEADLINE, Cluster
from tests.kubernetes.marks import marks
from tests.kubernetes.pods import WEB, container, document, running

pytestmark = marks
OVERHEAD = 256 << 20
"""Bytes of memory, of the RuntimeClass."""
BYTES = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def test_memory_ran_out(cluster: Cluster) -> None:
    eats = container("eats", "tail /dev/zero", resources={"limits": {"memory": "32Mi"}})
    with running(cluster, document("eats", eats, restartPolicy="Never"), condition="jsonpath={.status.phase}=Failed") as pod:
        ended = pod.status("eats")["state"]["terminated"]
        assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_what_is_to_run_before_the_end_does(cluster: Cluster) -> None:
    """It ends before the program gets SIGTERM, which it then handles."""
    said = cluster.folder / "said"
    said.mkdir()
    script = "trap 'echo term >> /said/it; exit 0' TERM; while :; do sleep 0.2; done"
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /said/it; sleep 1; echo done >> /said/it"]}}}
    ends = container("ends", script, lifecycle=hook, volumeMounts=[{"name": "said", "mountPath": "/said"}])
    volumes = [{"name": "said", "hostPath": {"path": str(said), "type": "Directory"}}]
    with running(cluster, document("ends", ends, volumes=volumes, terminationGracePeriodSeconds=60)):
        pass
    assert (said / "it").read_text().split() == ["hook", "done", "term"]


def test_rolling_update_and_rollback(cluster: Cluster) -> None:
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    spec = document("rolls", container("serves", WEB.replace("from the pod", "$TEXT"), readinessProbe=probe))["spec"]
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "rolls"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "rolls"}},
            "template": {"metadata": {"labels": {"app": "rolls"}}, "spec": {**spec, "terminationGracePeriodSeconds": 1}},
        },
    }
    cluster.apply(deployment)
    try:
        for text in ("one", "two"):
            cluster.kubectl("set", "env", "deployment/rolls", f"TEXT={text}")
            assert _rolled(cluster) == text
        cluster.kubectl("rollout", "undo", "deployment/rolls")
        assert _rolled(cluster) == "one"
    finally:
        cluster.kubectl("delete", "deployment", "rolls", "--wait")
        cluster.kubectl("wait", "pod", "-l", "app=rolls", "--for=delete", "--timeout=120s")


def _rolled(cluster: Cluster) -> str:
    """Return what the Deployment serves once its rollout is complete."""
    cluster.kubectl("rollout", "status", "deployment/rolls", f"--timeout={DEADLINE:g}s")
    ready = [pod for pod in cluster.get("pods", "-l", "app=rolls")["items"] if "deletionTimestamp" not in pod["metadata"]]
    assert len(ready) == 1
    return eventually(lambda: cluster.page(f"http://{ready[0]['status']['podIP']}:8080/")).strip()


def test_pods_go_on_while_kubelet_and_containerd_are_started_again(cluster: Cluster) -> None:
    with running(cluster, document("goes-on", container("serves", WEB))) as pod:
        url, before = f"http://{pod.address}:8080/", pod.status("serves")["containerID"]
        assert eventually(lambda: cluster.page(url)) == "from the pod\n"  # it is ready once it runs, and may not listen yet
        cluster.stop_kubelet()
        assert cluster.page(url) == "from the pod\n"
        cluster.start_kubelet()
        eventually(lambda: cluster.try_kubectl("exec", "goes-on", "--", "true").returncode == 0, seconds=DEADLINE)
        os.kill(cluster.node.daemon_pid, signal.SIGKILL)
        cluster.node.lost()
        assert cluster.page(url) == "from the pod\n"
        cluster.node.start()
        eventually(lambda: cluster.try_kubectl("exec", "goes-on", "--", "true").returncode == 0, seconds=DEADLINE)
        cluster.wait("pod/goes-on", "condition=Ready")
        assert cluster.kubectl("logs", "goes-on") == "serving\n"
        status = pod.status("serves")
        assert (status["containerID"], status["restartCount"]) == (before, 0)


def test_a_machine_that_is_killed_is_replaced(cluster: Cluster) -> None:
    with running(cluster, document("killed", container("serves", WEB))) as pod:
        before = pod.status("serves")["containerID"]
        (machine,) = cluster.machines()
        os.kill(int(machine.name), signal.SIGKILL)
        eventually(lambda: pod.status("serves")["restartCount"] == 1, lambda: cluster.events("killed"), DEADLINE)
        cluster.wait("pod/killed", "condition=Ready")
        assert pod.status("serves")["containerID"] != before
        assert eventually(lambda: cluster.page(f"http://{pod.address}:8080/")) == "from the pod\n"


def test_the_scheduler_counts_the_overhead(cluster: Cluster) -> None:
    """A pod that just fits without it: as a process it is placed, in a VM it is not."""
    node = cluster.get("node", "node")["status"]["allocatable"]["memory"]
    used = sum(_memory(pod) for pod in cluster.get("pods")["items"])
    request = int(node.removesuffix("Ki")) * 1024 - used - OVERHEAD // 2
    large = container("large", "sleep 1000", resources={"requests": {"memory": str(request)}})
    with running(cluster, document("large", large), condition="") as pod:
        eventually(lambda: "Insufficient memory" in cluster.events("large"), lambda: cluster.events("large"), DEADLINE)
        assert pod.get()["spec"]["overhead"]["memory"] == "256Mi"
    with running(cluster, document("large", large, runtime_class="native")):
        pass


def _memory(pod: Any) -> int:
    """Return the bytes that the scheduler counts for a pod."""
    asked = [one.get("resources", {}).get("requests", {}).get("memory", "0") for one in pod["spec"]["containers"]]
    return sum(_bytes(one) for one in [*asked, pod["spec"].get("overhead", {}).get("memory", "0")])


def _bytes(quantity: str) -> int:
    unit = quantity[-2:]
    return int(quantity.removesuffix(unit)) * BYTES[unit] if unit in BYTES else int(quantity)


@pytest.mark.parametrize("kind", ["network", "pid", "ipc"])
def test_a_namespace_of_the_host_is_refused_by_name(cluster: Cluster, kind: str) -> None:
    """The event of the pod has what the shim says."""
    name = f"host-{kind}"
    field = {"network": "hostNetwork", "pid": "hostPID", "ipc": "hostIPC"}[kind]
    pod = document(name, container("serves", WEB))
    pod["spec"][field] = True
    with running(cluster, pod, condition=""):
        expected = f"a container in a VM cannot use the host's {kind} namespace"
        eventually(lambda: expected in cluster.events(name), lambda: cluster.events(name), DEADLINE)


def test_a_device_that_is_no_block_device_is_refused_by_name(cluster: Cluster) -> None:
    null = container("null", "sleep 1000", volumeMounts=[{"name": "null", "mountPath": "/host-null"}])
    volumes = [{"name": "null", "hostPath": {"path": "/dev/null", "type": "CharDevice"}}]
    with running(cluster, document("device", null, volumes=volumes), condition=""):
        expected = "/dev/null is neither a folder nor a regular file"
        eventually(lambda: expected in cluster.events("device"), lambda: cluster.events("device"), DEADLINE)
