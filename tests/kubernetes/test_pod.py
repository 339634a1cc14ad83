"""A pod with most of what a pod can have: probes, volumes that change, a token, init containers, a sidecar."""

import base64
import json
from collections.abc import Iterator

import pytest

from tests.eventually import eventually
from tests.kubernetes.cluster import DEADLINE, Cluster
from tests.kubernetes.marks import marks
from tests.kubernetes.pods import WEB, Pod, config, container, document, running

pytestmark = marks
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
PERIOD = {"periodSeconds": 1, "timeoutSeconds": 20}
"""Seconds between probes, and for an answer: by default kubelet gives a guest one second, which emulation on a busy machine exceeds."""


def features() -> dict[str, object]:
    """Return the pod. Its first container serves, is started when its port answers, and lives while /tmp/healthy is there."""
    work = {"name": "work", "mountPath": "/work"}
    mounts = [
        work,
        {"name": "config", "mountPath": "/config"},
        {"name": "secret", "mountPath": "/secret", "readOnly": True},
        {"name": "about", "mountPath": "/about"},
        {"name": "memory", "mountPath": "/memory"},
    ]
    serves = container(
        "serves",
        f"touch /tmp/healthy; {WEB}",
        volumeMounts=mounts,
        env=[
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "features", "key": "password"}}},
        ],
        startupProbe={"tcpSocket": {"port": 8080}, **PERIOD, "failureThreshold": 60},
        readinessProbe={"httpGet": {"path": "/index.html", "port": 8080}, **PERIOD},
        livenessProbe={"exec": {"command": ["cat", "/tmp/healthy"]}, **PERIOD, "failureThreshold": 1},
    )
    first = container("first", "echo first > /work/order", volumeMounts=[work])
    side = container("side", "echo side >> /work/order; trap 'exit 0' TERM; while :; do sleep 1; done", volumeMounts=[work])
    side["restartPolicy"] = "Always"  # this is what makes an init container a sidecar
    second = container("second", "echo second >> /work/order", volumeMounts=[work])
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    volumes = [
        {"name": "work", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "config", "configMap": {"name": "features"}},
        {"name": "secret", "secret": {"secretName": "features", "defaultMode": 0o400}},
        {"name": "about", "downwardAPI": {"items": [labels]}},
    ]
    return document("features", serves, initContainers=[first, side, second], volumes=volumes, hostname="web-0")


@pytest.fixture(scope="module")
def pod(cluster: Cluster) -> Iterator[Pod]:
    cluster.apply(config("ConfigMap", "features", key="one"), config("Secret", "features", password="sesame"))
    with running(cluster, features()) as made:
        yield made


def test_init_containers_and_the_sidecar_run_in_order(pod: Pod) -> None:
    """The second one is only run once the sidecar has started. Its own line may be a moment later, so its place is not told."""
    lines = pod.exec("cat", "/work/order").split()
    assert lines[0] == "first"
    assert sorted(lines) == ["first", "second", "side"]
    assert pod.status("side")["state"].keys() == {"running"}
    assert pod.status("first")["state"]["terminated"]["exitCode"] == 0


def test_it_is_ready_by_its_probes_and_serves(pod: Pod) -> None:
    assert pod.status("serves")["started"]
    assert pod.status("serves")["ready"]
    assert pod.cluster.page(f"http://{pod.address}:8080/") == "from the pod\n"


def test_downward_api(pod: Pod) -> None:
    assert pod.exec("sh", "-c", "echo $POD $ADDRESS $PASSWORD; hostname; cat /about/labels").split() == [
        "features",
        pod.address,
        "sesame",
        "web-0",
        'app="features"',
    ]


def test_the_token_is_the_pods(pod: Pod) -> None:
    token = pod.exec("cat", TOKEN)
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["sub"] == "system:serviceaccount:default:default"
    assert claims["kubernetes.io"]["pod"]["name"] == "features"


def test_volumes(pod: Pod) -> None:
    assert pod.exec("stat", "-Lc", "%a", "/secret/password") == "400\n"
    assert "Read-only" in pod.exec("sh", "-c", "echo x 2>&1 > /secret/new || true")
    assert pod.exec("sh", "-c", "echo kept > /memory/x; cat /memory/x") == "kept\n"


def test_a_config_map_and_a_secret_change(pod: Pod) -> None:
    """kubelet writes new files and moves a link. The guest sees them without a restart."""
    assert pod.exec("cat", "/config/key", "/secret/password") == "onesesame"
    pod.cluster.apply(config("ConfigMap", "features", key="two"), config("Secret", "features", password="open"))
    eventually(lambda: pod.exec("cat", "/config/key", "/secret/password") == "twoopen", seconds=DEADLINE)
    assert pod.status("serves")["restartCount"] == 0


def test_one_that_is_not_alive_is_started_again(pod: Pod) -> None:
    """In the same VM: the pod keeps its address and its sidecar."""
    address, side = pod.address, pod.status("side")["containerID"]
    pod.exec("rm", "/tmp/healthy")
    eventually(lambda: pod.status("serves")["restartCount"] == 1, lambda: pod.cluster.events("features"), DEADLINE)
    pod.cluster.wait("pod/features", "condition=Ready")
    assert (pod.address, pod.status("side")["containerID"]) == (address, side)
    assert "Liveness probe failed" in pod.cluster.events("features")


def test_a_grpc_probe(cluster: Cluster) -> None:
    """etcd has the health service. Without its answer the pod would not be ready."""
    urls = "--listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://0.0.0.0:2379"
    server = container("etcd", f"exec /programs/etcd --data-dir /tmp/etcd {urls}", readinessProbe={"grpc": {"port": 2379}, **PERIOD})
    server["volumeMounts"] = [{"name": "programs", "mountPath": "/programs", "readOnly": True}]
    volumes = [{"name": "programs", "hostPath": {"path": str(cluster.etcd.parent), "type": "Directory"}}]
    with running(cluster, document("grpc", server, volumes=volumes)) as pod:
        assert pod.status("etcd")["ready"]
