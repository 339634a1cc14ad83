"""Pods of the sandbox service: what is read from CRI's configuration, and what is answered before a VM boots."""

from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.shim import handler_options, sandbox_config, spec
from innkeeper.shim.cgroups import resolve
from innkeeper.shim.events import Publisher
from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.shim.pod import Pod
from innkeeper.shim.sandbox_service import SERVICE, SandboxService
from innkeeper.wire import status
from innkeeper.wire.envelope import Request

OPTIONS = "runtimeoptions.v1.Options"


def configured(**linux: object) -> pb.PodSandboxConfig:
    dns = pb.DNSConfig(servers=["10.0.0.53"], searches=["a", "b"], options=["ndots:5"])
    return pb.PodSandboxConfig(hostname="web-0", dns_config=dns, linux=pb.LinuxPodSandboxConfig(**linux))  # type: ignore[arg-type]


def test_a_pod_as_a_specification() -> None:
    resources = pb.ContainerResources(memory_limit_in_bytes=128 << 20, cpu_quota=150_000, cpu_period=100_000)
    pod = configured(cgroup_parent="/pods/a", sysctls={"net.a": "1"}, resources=resources)
    document = sandbox_config.document(pod, "id", "/run/netns/x")
    spec.check(document)
    assert spec.is_sandbox(document)
    assert spec.network_namespace(document) == "/run/netns/x"
    assert (spec.size(document).memory, spec.size(document).cpus) == (128 << 20, 2)
    assert document["hostname"] == "web-0"
    assert document["linux"]["sysctl"] == {"net.a": "1"}
    assert document["linux"]["cgroupsPath"] == "/pods/a/id"


def test_a_parent_of_systemd_is_a_slice() -> None:
    """As containerd's CRI writes it for a pause container."""
    document = sandbox_config.document(configured(cgroup_parent="/kubepods.slice/kubepods-pod1.slice"), "id", "")
    assert document["linux"]["cgroupsPath"] == "kubepods-pod1.slice:cri-containerd:id"
    assert resolve(document["linux"]["cgroupsPath"]) == "kubepods.slice/kubepods-pod1.slice/cri-containerd-id.scope"


@pytest.mark.parametrize("kind", ["network", "pid", "ipc"])
def test_namespaces_of_the_host_are_refused(kind: str) -> None:
    modes = pb.NamespaceOption(**{kind: sandbox_config.OF_NODE})
    pod = configured(security_context=pb.SandboxSecurityContext(namespace_options=modes))
    with pytest.raises(InnkeeperError, match=f"the host's {kind} namespace"):
        spec.check(sandbox_config.document(pod, "id", ""))


def test_files_of_the_pod(tmp_path: Path) -> None:
    mounts = sandbox_config.mounts(configured(), tmp_path / "pod")
    texts = {mount["destination"]: Path(mount["source"]).read_text() for mount in mounts if mount["destination"] != "/dev/shm"}
    assert texts == {
        "/etc/resolv.conf": "search a b\nnameserver 10.0.0.53\noptions ndots:5\n",
        "/etc/hostname": "web-0\n",
        "/etc/hosts": "127.0.0.1 localhost web-0\n::1 localhost\n",
    }
    own = {"destination": "/etc/hosts", "source": "/kubelet/hosts"}
    merged = spec.with_mounts({"mounts": [own]}, mounts)["mounts"]
    assert [mount["destination"] for mount in merged] == ["/etc/hosts", "/dev/shm", "/etc/resolv.conf", "/etc/hostname"]
    assert merged[0] is own
    folder = {"destination": "/etc/hosts", "source": str(tmp_path)}
    merged = spec.with_mounts({"mounts": [folder]}, mounts)["mounts"]
    assert folder not in merged and len(merged) == 4


def test_what_is_answered_without_a_vm(tmp_path: Path) -> None:
    service = SandboxService(Pod("k8s.io", Publisher("", "k8s.io"), tmp_path / "socket"))

    def call(method: str, **fields: object) -> tuple[int, str]:
        message = pb.CreateSandboxRequest if method == "CreateSandbox" else pb.SandboxRequest
        answer = service.handle(Request(SERVICE, method, message(sandbox_id="one", **fields).SerializeToString()))  # type: ignore[arg-type]
        return answer.code, answer.message

    assert call("CreateSandbox")[1].startswith("sandbox one: its options are empty")
    config = pb.Any(type_url="type.googleapis.com/runtime.v1.PodSandboxConfig", value=configured().SerializeToString())
    assert call("StartSandbox")[0] == status.NOT_FOUND
    assert call("CreateSandbox", options=config) == (status.OK, "")
    assert call("Platform") == (status.OK, "")
    for method in ("SandboxStatus", "WaitSandbox", "PingSandbox", "StopSandbox"):
        assert call(method)[0] == status.NOT_FOUND
    assert call("SandboxMetrics")[0] == status.UNIMPLEMENTED
    assert not service.ended
    assert call("ShutdownSandbox") == (status.OK, "")
    assert service.ended


def test_the_configuration_that_a_handler_names() -> None:
    options = pb.Any(type_url=OPTIONS, value=pb.Options(config_path="/etc/other.toml").SerializeToString())
    params = pb.BootstrapParams(instance_id="id", namespace="ns", extensions=[pb.Extension(value=options)])
    assert handler_options.config_path_at_start(params.SerializeToString(), params) == "/etc/other.toml"
    assert handler_options.config_path_at_start(options.SerializeToString(), None) == "/etc/other.toml"
    for data in (b"", b"\xff", pb.Any(type_url="containerd.runc.v1.Options", value=b"\xff").SerializeToString()):
        assert handler_options.config_path_at_start(data, None) == ""
