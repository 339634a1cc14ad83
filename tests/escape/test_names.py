"""Names in a request that would lead somewhere else: ids, groups, sysctls."""

from collections.abc import Callable

import pytest

from innkeeper.client import RpcError
from innkeeper.wire.pb import agent_pb2
from tests.escape.documents import ROOT, Document
from tests.escape.target import Target

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]


def refused(target: Target, change: Callable[[Document], object], match: str) -> None:
    """The changed default document is refused by the name of its field."""
    with pytest.raises(RpcError, match=match):
        target.attack(ROOT, "identity", change=change)


IDS = {
    "parent": "../x", "slash": "a/b", "empty": "", "dot": ".", "dots": "..", "NUL": "a\0b", "long": "x" * 4096, "unicode": "\u00fc",
    "space": "a b", "newline": "a\n", "absolute": "/etc", "option": "-x", "colon": "a:b", "hidden": ".x", "percent": "%2e%2e",
}  # fmt: skip


@pytest.mark.escape("E46")
@pytest.mark.parametrize("kind", IDS)
def test_an_id_that_is_none_is_refused(target: Target, kind: str) -> None:
    """Of a container, and of a process. That no directory is made, the fixture sees."""
    with pytest.raises(RpcError, match="container_id"):
        target.create(target.document("identity"), IDS[kind])
    if IDS[kind]:  # the container's own id stands for an empty one
        doc = target.document("hold")
        request = agent_pb2.ExecProcessRequest(container_id="x", exec_id=IDS[kind])
        with pytest.raises(RpcError, match=r"exec_id|not found"):
            target.agent.client.call("grpc.AgentService", "ExecProcess", request, agent_pb2.ExecProcessRequest, 30)
        with target.running(doc) as id, pytest.raises(RpcError, match="exec_id"):
            target.agent.exec_process(id, IDS[kind], agent_pb2.ExecProcessRequest().process)


GROUPS = ("/../..", "../../x", "a/../../b", "/", "..", "x/" * 2500, "a\0b", ":..:x", "./../x")


@pytest.mark.escape("E44")
@pytest.mark.parametrize("path", GROUPS, ids=range(len(GROUPS)))
def test_a_groups_path_stays_below_the_agents(target: Target, path: str) -> None:
    refused(target, lambda doc: doc["linux"].update(cgroupsPath=path), "cgroupsPath")


@pytest.mark.escape("E44")
@pytest.mark.parametrize("path", ["//deep//down/./x", "slice:prefix:name", "/absolute"])
def test_a_groups_path_is_taken_from_the_agents_own(target: Target, path: str) -> None:
    """Wherever it begins. The fixture sees that all of it is gone afterwards."""
    before = target.holdings()
    with target.running({**target.document("hold"), "linux": {**target.document()["linux"], "cgroupsPath": path}}):
        made = [holding.split(" ", 1)[1] for holding in target.holdings() - before if holding.startswith("group")]
        assert made
        assert all("innkeeper-agent-" in group or group.startswith("/volume/") for group in made)
        assert max(made, key=len).endswith(path.replace(":", "/").replace("/./", "/").replace("//", "/").strip("/"))


SYSCTLS = (
    "net/../kernel/core_pattern", "net.ipv4..x", "kernel.shm_rmid_forced/../../core_pattern", "kernel/core_pattern", "kernel.core_pattern",
    "net/ipv4/../../kernel/core_pattern", "net.ipv4.conf.../x", "/net/ipv4/ip_forward", "net", "", ".", "..", "fs.mqueue", "fs.mqueue..",
    "vm.drop_caches", "kernel.hostname", "kernel.modprobe", "fs.binfmt_misc.register", "dev.cdrom.autoeject", "user.max_user_namespaces",
    "net.ipv4.ip_forward\0", "net.ipv4.ip_forward\n", "net.ipv4.\u00fc",
)  # fmt: skip


@pytest.mark.escape("E58")
@pytest.mark.parametrize("name", SYSCTLS, ids=range(len(SYSCTLS)))
def test_only_sysctls_of_the_containers_own_namespaces_are_set(target: Target, name: str) -> None:
    refused(target, lambda doc: doc["linux"].update(sysctl={name: "core"}), "sysctl")


@pytest.mark.escape("E58")
@pytest.mark.parametrize("kind", ["ipc", "uts"])
def test_the_agents_own_namespace_does_not_count_as_the_containers(target: Target, kind: str) -> None:
    """Joined by its path, it is the machine's. (Its network is the pod's in a guest, and may be set.)"""
    names = {"ipc": ("ipc", "kernel.msgmax"), "uts": ("uts", "kernel.domainname")}
    file, name = names[kind]
    before = target.run(target.document("hold"))

    def change(doc: Document) -> None:
        doc["linux"]["namespaces"] = [entry for entry in doc["linux"]["namespaces"] if entry["type"] != kind]
        doc["linux"]["namespaces"].append({"type": kind, "path": f"/proc/self/ns/{file}"})
        doc["linux"]["sysctl"] = {name: "1"}
        doc.pop("hostname")

    refused(target, change, "sysctl")
    assert before.status == 0
