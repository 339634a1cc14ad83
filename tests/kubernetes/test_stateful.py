"""A StatefulSet with a volume of its own: a folder of the node, by a local PersistentVolume."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.kubernetes.cluster import DEADLINE, Cluster
from tests.kubernetes.marks import marks
from tests.kubernetes.pods import Pod, container, document

pytestmark = marks
SIZE = {"storage": "16Mi"}


def volume(name: str, path: Path) -> dict[str, object]:
    """Return a local PersistentVolume of the node."""
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node"]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": SIZE,
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "local",
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


@pytest.fixture(scope="module")
def database(cluster: Cluster) -> Iterator[Pod]:
    folder = cluster.folder / "volume"
    folder.mkdir()
    storage = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "local"}}
    storage |= {"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}
    starts = container("starts", "echo started >> /data/log; sleep 100000", volumeMounts=[{"name": "data", "mountPath": "/data"}])
    claim = {"accessModes": ["ReadWriteOnce"], "storageClassName": "local", "resources": {"requests": SIZE}}
    stateful = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "database"},
        "spec": {
            "serviceName": "database",
            "selector": {"matchLabels": {"app": "database"}},
            "template": {"metadata": {"labels": {"app": "database"}}, "spec": document("database", starts)["spec"]},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
        },
    }
    cluster.apply(storage, volume("data", folder), stateful)
    try:
        cluster.kubectl("rollout", "status", "statefulset/database", f"--timeout={DEADLINE:g}s")
        yield Pod(cluster, "database-0")
    finally:
        cluster.kubectl("delete", "statefulset", "database", "--wait")
        cluster.kubectl("wait", "pod", "-l", "app=database", "--for=delete", "--timeout=120s")


def test_its_volume_outlives_the_pod(database: Pod) -> None:
    assert database.exec("cat", "/data/log") == "started\n"
    before = database.get()["metadata"]["uid"]
    database.cluster.kubectl("delete", "pod", database.name, "--wait")
    eventually(lambda: database.cluster.try_kubectl("get", "pod", database.name).returncode == 0, seconds=DEADLINE)
    database.cluster.wait(f"pod/{database.name}", "condition=Ready")
    assert database.get()["metadata"]["uid"] != before
    assert database.exec("cat", "/data/log") == "started\nstarted\n"
