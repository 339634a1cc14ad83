"""A pod without a shared folder: what kubelet makes for it is copied into its VM, and changes there."""

from collections.abc import Iterator

import pytest

from tests.eventually import eventually
from tests.kubernetes.cluster import DEADLINE, Cluster
from tests.kubernetes.marks import marks
from tests.kubernetes.pods import Pod, config, container, document, running
from tests.kubernetes.running import COPIED

pytestmark = marks
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.fixture(scope="module")
def pod(cluster: Cluster) -> Iterator[Pod]:
    """Two containers: one that waits, and one that ends with a message."""
    cluster.apply(config("ConfigMap", "copied", a="a1", b="b1"), config("Secret", "copied", key="sesame"))
    work = [{"name": "work", "mountPath": "/work"}]
    places = {"config": "/config", "secret": "/secret", "about": "/about"}
    mounts = [*work, *({"name": name, "mountPath": place} for name, place in places.items())]
    mounts += [{"name": "config", "mountPath": "/one", "subPath": "a"}, {"name": "work", "mountPath": "/below", "subPath": "below"}]
    waits = container("waits", "echo file > /below/file; sleep 100000", volumeMounts=mounts)
    says = container("says", "while ! cat /work/below/file > /dev/termination-log; do sleep 1; done; exit 3", volumeMounts=work)
    volumes = [
        {"name": "work", "emptyDir": {}},
        {"name": "config", "configMap": {"name": "copied"}},
        {"name": "secret", "secret": {"secretName": "copied", "defaultMode": 0o440}},
        {"name": "about", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]
    security = {"fsGroup": 2000}
    made = document("copied", waits, says, runtime_class=COPIED, volumes=volumes, securityContext=security, restartPolicy="Never")
    with running(cluster, made, "jsonpath={.status.phase}=Running") as up:
        yield up


def test_what_kubelet_makes_is_there(pod: Pod) -> None:
    assert "virtiofs" not in pod.exec("cat", "/proc/mounts")
    assert pod.exec("cat", "/config/a", "/config/b", "/secret/key", "/one", f"{ACCOUNT}/namespace") == "a1b1sesamea1default"
    assert 'app="copied"' in pod.exec("cat", "/about/labels")
    assert pod.exec("stat", "-Lc", "%a %g", "/secret/key", "/work").split() == ["440", "2000", "2777", "2000"]
    assert f"{pod.address}\tcopied" in pod.exec("cat", "/etc/hosts")
    assert int(pod.exec("sh", "-c", f"wc -c < {ACCOUNT}/token")) > 100


def test_containers_share_an_empty_dir_and_the_last_message_is_kept(pod: Pod) -> None:
    end = eventually(lambda: pod.status("says")["state"].get("terminated"), seconds=DEADLINE)
    assert (end["exitCode"], end["message"]) == (3, "file\n")


def test_changes_arrive(pod: Pod) -> None:
    pod.cluster.apply(config("ConfigMap", "copied", a="a2", c="c2"))
    pod.cluster.kubectl("label", "pod", pod.name, "new=label")
    eventually(lambda: pod.exec("sh", "-c", "cat /config/*") == "a2c2", seconds=DEADLINE)
    eventually(lambda: 'new="label"' in pod.exec("cat", "/about/labels"), seconds=DEADLINE)
    assert pod.exec("ls", "/config").split() == ["a", "c"]


def test_what_would_be_lost_is_refused_in_an_event(cluster: Cluster) -> None:
    volumes = [{"name": "host", "hostPath": {"path": "/usr"}}]
    writes = container("writes", "true", volumeMounts=[{"name": "host", "mountPath": "/host"}])
    with running(cluster, document("lost", writes, runtime_class=COPIED, volumes=volumes), ""):
        eventually(lambda: "what a container writes to /usr would be lost" in cluster.events("lost"), seconds=DEADLINE)
