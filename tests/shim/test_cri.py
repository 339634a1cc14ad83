"""Pods by CRI: one VM each, nothing of the pause container in it, the pod's address on its card."""

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually, retry
from tests.needs import needs
from tests.shim.node import IMAGE, Node

pytestmark = [
    pytest.mark.root,
    pytest.mark.interop,
    pytest.mark.vm,
    needs("root", "ctr", "virtiofsd", "setpriv", "nsenter", "ip", "busybox", "cni", "iptables-save", "go", "module:pyroute2"),
]
SHARED, OWN, TARGET = 0, 1, 3
"""Whose pid namespace a container has: the pod's, its own, or another's, as kubelet asks for (CRI's NamespaceMode)."""
WEB = "mkdir /tmp/www; echo from the pod > /tmp/www/index.html; echo serving; exec httpd -f -p 80 -h /tmp/www"


@dataclass
class Pod:
    """A pod with one container, which serves HTTP."""

    node: Node
    id: str
    configuration: Path
    volume: Path
    pids: int
    container: str = ""

    def add(self, name: str, script: str, *, pids: int | None = None, target: str = "", **more: object) -> str:
        """Create and start another container. Return its id."""
        options: dict[str, Any] = {"pid": self.pids if pids is None else pids, **({"target_id": target} if target else {})}
        linux = {"security_context": {"namespace_options": options}}
        document: dict[str, Any] = {
            "metadata": {"name": name},
            "image": {"image": IMAGE},
            "log_path": f"{name}.log",
            "linux": linux,
            **more,
        }
        document["command"] = ["sh", "-c", script]
        path = self.node.folder / f"{name}.json"
        path.write_text(json.dumps(document))
        container = self.node.crictl("create", "--no-pull", self.id, path, self.configuration).strip()
        self.node.crictl("start", container)
        return container

    def exec(self, *command: str, **options: object) -> str:
        """Run a command in the container that serves."""
        return self.node.crictl("exec", *(["-i"] if options else []), self.container, *command, **options)


@contextmanager
def running_pod(node: Node, name: str, handler: str = "innkeeper", pids: int = OWN) -> Iterator[Pod]:
    """Context manager: a pod of a handler with a volume, and its container that serves. It can be removed whatever happened to it.

    Its containers have a pid namespace each, or share the pod's.
    """
    volume = node.folder / name
    volume.mkdir()
    (volume / "key").write_text("one\n")
    configuration = node.folder / f"{name}-pod.json"
    options = {"pid": pids}
    metadata = {"name": name, "namespace": "default", "uid": name, "attempt": 1}
    linux = {"security_context": {"namespace_options": options}, "sysctls": {"net.ipv4.ip_unprivileged_port_start": "70"}}
    linux["cgroup_parent"] = f"/{node.folder.name}"
    configuration.write_text(
        json.dumps(
            {"metadata": metadata, "hostname": "web-0", "log_directory": str(node.folder), "linux": linux}
            | {"dns_config": {"servers": ["10.255.255.53"], "searches": ["example.org"]}}
        )
    )
    made = Pod(node, node.crictl("runp", "--runtime", handler, configuration).strip(), configuration, volume, pids)
    node.groups.add(("k8s.io", made.id))
    try:
        mounts = [{"host_path": str(volume), "container_path": "/config", "readonly": True}]
        made.container = made.add(f"{name}-serves", WEB, mounts=mounts)
        yield made
    finally:
        node.crictl("stopp", made.id)
        node.crictl("rmp", made.id)
    assert made.id not in node.crictl("pods", "-q", "--no-trunc")


@pytest.fixture(scope="module")
def pod(daemon: Node) -> Iterator[Pod]:
    with running_pod(daemon, "web") as made:
        yield made


def address(pod: Pod) -> str:
    return str(json.loads(pod.node.crictl("inspectp", pod.id))["status"]["network"]["ip"])


def page(pod: Pod) -> str:
    """Return what the pod's server answers. It may just have been started."""

    def read() -> str:
        with urllib.request.urlopen(f"http://{address(pod)}/", timeout=20) as answer:
            return str(answer.read().decode())

    return retry(read, OSError)


def test_network(pod: Pod) -> None:
    assert page(pod) == "from the pod\n"
    pod.exec("ping", "-c", "1", "-W", "5", pod.node.gateway)
    assert f"inet {address(pod)}/24" in pod.exec("ip", "address", "show", "eth0")


def test_port_forward(pod: Pod) -> None:
    """containerd connects to localhost of the pod's network namespace; the server is in the guest, whose localhost is another."""
    page(pod)
    with subprocess.Popen(pod.node.crictl_argv("port-forward", pod.id, ":80"), stdout=subprocess.PIPE, text=True) as forward:
        assert forward.stdout is not None
        line = forward.stdout.readline()  # Forwarding from 127.0.0.1:PORT -> 80
        for _ in range(2):
            with urllib.request.urlopen(f"http://{line.split()[2]}/", timeout=20) as answer:
                assert answer.read() == b"from the pod\n"
        forward.terminate()


def test_what_the_pod_is_to_its_container(pod: Pod) -> None:
    assert pod.exec("uname", "-rn").split() == ["web-0", pod.exec("uname", "-r").strip()]
    assert pod.exec("uname", "-r").strip().endswith("-innkeeper")
    assert pod.exec("cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start") == "70\n"
    assert "nameserver 10.255.255.53" in pod.exec("cat", "/etc/resolv.conf")
    assert "localhost" in pod.exec("cat", "/etc/hosts")
    assert "shm /dev/shm tmpfs" in pod.exec("cat", "/proc/mounts")
    processes = pod.exec("ps").splitlines()[1:]
    assert "httpd" in processes[0]
    assert "tail" not in "".join(processes)  # the command of the pause container


def test_a_config_map_changes_live_and_only_the_host_writes(pod: Pod) -> None:
    assert pod.exec("cat", "/config/key") == "one\n"
    (pod.volume / "new").write_text("two\n")
    (pod.volume / "new").rename(pod.volume / "key")
    eventually(lambda: pod.exec("cat", "/config/key") == "two\n")
    assert "Read-only" in pod.exec("sh", "-c", "echo x 2>&1 > /config/key || true")


def test_a_volume_in_memory_is_the_guests(pod: Pod) -> None:
    """Both containers have it, it outlives each of them, and the host sees no file of it."""
    volume = pod.node.folder / "volumes/kubernetes.io~empty-dir/memory"
    volume.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=1777", "tmpfs", volume], check=True)
    try:
        mounts = [{"container_path": "/memory", "host_path": str(volume)}]
        first = pod.add("writes", "echo kept > /memory/file; df -m /memory; sleep 1000", mounts=mounts)
        second = pod.add("reads", "sleep 1000", mounts=mounts)
        assert eventually(lambda: pod.node.crictl("exec", second, "cat", "/memory/file")) == "kept\n"
        pod.node.crictl("rm", "--force", first)
        assert pod.node.crictl("exec", second, "cat", "/memory/file") == "kept\n"
        pod.node.crictl("rm", "--force", second)
        third = pod.add("again", "cat /memory/file; stat -c %a /memory; df -m /memory; sleep 1000", mounts=mounts)
        log = pod.node.folder / "again.log"
        seen = eventually(lambda: [line.split(maxsplit=3)[3] for line in log.read_text().splitlines()][3:] and log.read_text())
        assert " kept\n" in seen and " 1777\n" in seen and "tmpfs" in seen
        assert list(volume.iterdir()) == []
        pod.node.crictl("rm", "--force", third)
    finally:
        subprocess.run(["umount", volume], check=True)


def test_exec_logs_and_stats(pod: Pod) -> None:
    assert pod.exec("wc", "-l", input="a\nb\nc\n").strip() == "3"
    eventually(lambda: "stdout F serving" in (pod.node.folder / "web-serves.log").read_text())
    assert int(json.loads(pod.node.crictl("stats", "-o", "json", pod.container))["stats"][0]["memory"]["workingSetBytes"]["value"]) > 0


def test_another_limit(pod: Pod) -> None:
    pod.node.crictl("update", "--memory", str(100 << 20), pod.container)
    assert pod.exec("cat", "/sys/fs/cgroup/memory.max").strip() == str(100 << 20)


def test_the_vm_is_in_the_pods_group(pod: Pod) -> None:
    """Where kubelet's limit holds for it, and from where kubelet takes the pod's figures."""
    qemu = int(json.loads(pod.node.crictl("inspectp", pod.id))["info"]["pid"])
    for pid in (qemu, pod.node.shim_of(qemu)):
        assert f":memory:/{pod.node.folder.name}/{pod.id}\n" in Path(f"/proc/{pid}/cgroup").read_text()
    figures = json.loads(pod.node.crictl("statsp", "-o", "json", "--id", pod.id))["stats"][0]
    assert int(figures["linux"]["memory"]["workingSetBytes"]["value"]) > 64 << 20
    pod.node.crictl("update", "--cpuset-cpus", "0", pod.container)
    assert Path(f"/sys/fs/cgroup/cpuset/{pod.node.folder.name}/{pod.id}/cpuset.cpus").read_text() == "0\n"
    with pytest.raises(AssertionError, match="and the VM has"):
        pod.node.crictl("update", "--memory", str(8 << 30), pod.container)


def test_a_second_container_and_its_end(pod: Pod) -> None:
    second = pod.add("second", "wget -qO - http://127.0.0.1/; uname -n; exit 3")
    log = pod.node.folder / "second.log"
    status = eventually(lambda: exited(pod, second))
    assert status is not None
    assert status["exitCode"] == 3
    assert [line.split(maxsplit=3)[3] for line in log.read_text().splitlines()] == ["from the pod", "web-0"]
    pod.node.crictl("rm", second)


def test_containers_that_share_a_pid_namespace(node: Node) -> None:
    """Process 1 is not a container's. It outlives each, and reaps what they leave."""
    with running_pod(node, "together", pids=SHARED) as pod:
        first = eventually(lambda: pod.exec("ps").splitlines()[1:])
        assert first[0].split()[:2] == ["1", "65535"] and "/pause" in first[0]
        assert any("httpd" in line for line in first[1:])
        second = pod.add("passes", "(sleep 0.5 &); sleep 1000")
        assert "sleep 1000" in pod.exec("ps")
        assert pod.exec("sh", "-c", "ls /proc/1/root/ 2>&1 || true").endswith("Permission denied\n")
        eventually(lambda: " Z " not in pod.exec("ps", "-o", "pid,stat,args") and "sleep 0.5" not in pod.exec("ps"))
        node.crictl("stop", "--timeout", "0", pod.container)
        assert exited(pod, second) is None
        assert "httpd" not in node.crictl("exec", second, "ps")


def test_a_container_in_the_pid_namespace_of_another(pod: Pod) -> None:
    """`kubectl debug --target` asks for it: that of the container that is named, not that of the first."""
    target = pod.add("target", "sleep 2000")
    debugger = pod.add("debugger", "sleep 3000", pids=TARGET, target=target)
    qemu = int(json.loads(pod.node.crictl("inspectp", pod.id))["info"]["pid"])
    pids = {json.loads(pod.node.crictl("inspect", id))["info"]["pid"] for id in (pod.container, target, debugger)}
    assert len(pids) == 3 and pids < {int(name) for name in os.listdir(f"/proc/{qemu}/task")} - {qemu}
    seen = pod.node.crictl("exec", debugger, "ps")
    assert "sleep 2000" in seen and "sleep 3000" in seen and "httpd" not in seen
    assert "sleep" not in pod.exec("ps")
    pod.node.crictl("stop", "--timeout", "0", target)
    assert eventually(lambda: exited(pod, debugger)) is not None
    for container in (debugger, target):
        pod.node.crictl("rm", container)
    assert pids & {int(name) for name in os.listdir(f"/proc/{qemu}/task")} == {
        json.loads(pod.node.crictl("inspect", pod.container))["info"]["pid"]
    }


def exited(pod: Pod, container: str) -> dict[str, Any] | None:
    status: dict[str, Any] = json.loads(pod.node.crictl("inspect", container))["status"]
    return status if status["state"] == "CONTAINER_EXITED" else None


def test_the_pod_outlives_a_restart_of_containerd(pod: Pod) -> None:
    pod.node.stop()
    pod.node.start()
    assert pod.exec("echo", "still here") == "still here\n"


@pytest.mark.parametrize("victim", ["qemu", "shim"])
def test_a_pod_whose_vm_was_killed_can_be_removed(node: Node, victim: str) -> None:
    with running_pod(node, victim) as pod:
        info = json.loads(node.crictl("inspectp", pod.id))["info"]
        qemu = int(info["pid"])
        os.kill(qemu if victim == "qemu" else node.shim_of(qemu), signal.SIGKILL)
        eventually(lambda: exited(pod, pod.container))
        state = eventually(lambda: json.loads(node.crictl("inspectp", pod.id))["status"]["state"] == "SANDBOX_NOTREADY")
        assert state
    eventually(lambda: not Path(f"/proc/{qemu}").exists())
