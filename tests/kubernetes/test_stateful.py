"""A StatefulSet with volumes of its own: a folder of the node, and a disk, by local PersistentVolumes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.kubernetes.cluster import DEADLINE, Cluster
from tests.kubernetes.marks import marks
from tests.kubernetes.pods import Pod, container, document

pytestmark = marks
SIZE = {"storage": "16Mi"}
FOLDER, DISK = "Filesystem", "Block"
"""What a volume is to its container (`volumeMode`)."""


def volume(name: str, path: Path | str, mode: str) -> dict[str, object]:
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
            "volumeMode": mode,
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


@pytest.fixture(scope="module")
def disk(cluster: Cluster) -> Iterator[tuple[Path, str]]:
    """A file of the node, and the block device that it is."""
    file = cluster.folder / "disk"
    file.write_bytes(b"from the node\n".ljust(16 << 20, b"\0"))
    device = subprocess.run(["losetup", "--find", "--show", file], capture_output=True, text=True, check=True).stdout.strip()
    try:
        yield file, device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture(scope="module")
def database(cluster: Cluster, disk: tuple[Path, str]) -> Iterator[Pod]:
    folder = cluster.folder / "volume"
    folder.mkdir()
    storage = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "local"}}
    storage |= {"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}
    starts = container("starts", "echo started >> /data/log; sleep 100000", volumeMounts=[{"name": "data", "mountPath": "/data"}])
    starts |= {"volumeDevices": [{"name": "raw", "devicePath": "/dev/raw"}]}
    claim = {"accessModes": ["ReadWriteOnce"], "storageClassName": "local", "resources": {"requests": SIZE}}
    claims = [{"metadata": {"name": name}, "spec": claim | {"volumeMode": mode}} for name, mode in (("data", FOLDER), ("raw", DISK))]
    stateful = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "database"},
        "spec": {
            "serviceName": "database",
            "selector": {"matchLabels": {"app": "database"}},
            "template": {"metadata": {"labels": {"app": "database"}}, "spec": document("database", starts)["spec"]},
            "volumeClaimTemplates": claims,
        },
    }
    cluster.apply(storage, volume("data", folder, FOLDER), volume("raw", disk[1], DISK), stateful)
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


def test_its_disk_is_a_device(database: Pod, disk: tuple[Path, str]) -> None:
    file, _ = disk
    assert database.exec("head", "-n", "1", "/dev/raw") == "from the node\n"
    database.exec("sh", "-c", "echo from the guest | dd of=/dev/raw conv=fsync")
    assert file.read_bytes().startswith(b"from the guest\n")
