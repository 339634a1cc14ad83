"""What kubectl does with a running pod in a VM: logs, exec, attach, cp, port-forward, debug, figures."""

import hashlib
import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually
from tests.kubernetes.cluster import DEADLINE, Cluster
from tests.kubernetes.marks import marks
from tests.kubernetes.pods import WEB, Pod, container, document, running

pytestmark = marks
SIZE = 3 << 20


@pytest.fixture(scope="module")
def pod(cluster: Cluster) -> Iterator[Pod]:
    counts = container("counts", "i=0; while :; do i=$((i+1)); echo line $i; sleep 1; done")
    reads = container("reads", "while read line; do echo got $line; done", stdin=True)
    with running(cluster, document("verbs", container("serves", WEB), counts, reads)) as made:
        yield made


def test_logs(pod: Pod) -> None:
    assert pod.cluster.kubectl("logs", "verbs", "-c", "serves") == "serving\n"
    argv = pod.cluster.kubectl_argv("logs", "-f", "verbs", "-c", "counts")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as follow:
        assert follow.stdout is not None
        assert [next(follow.stdout) for _ in range(4)] == [f"line {number}\n" for number in range(1, 5)]
        follow.kill()


def test_exec_has_status_streams_and_input(pod: Pod) -> None:
    done = pod.cluster.try_kubectl("exec", "verbs", "-c", "serves", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout) == (3, "out\n")
    assert done.stderr.startswith("err\n")
    text = "x" * SIZE
    assert pod.exec("sha256sum", input=text).split()[0] == hashlib.sha256(text.encode()).hexdigest()


def test_exec_with_a_terminal(pod: Pod) -> None:
    ours, theirs = pty.openpty()
    try:
        argv = pod.cluster.kubectl_argv("exec", "-it", "verbs", "-c", "serves", "--", "sh", "-c", "tty; read x; echo got $x")
        with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            _read_until(ours, b"/dev/pts/0")
            os.write(ours, b"hello\n")
            _read_until(ours, b"got hello")
            assert process.wait() == 0
    finally:
        os.close(ours)


def _read_until(terminal: int, end: bytes) -> None:
    said = b""
    while end not in said:
        said += os.read(terminal, 1000)


def test_attach(pod: Pod) -> None:
    argv = pod.cluster.kubectl_argv("attach", "-i", "-q", "verbs", "-c", "reads")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as attached:
        assert attached.stdin is not None
        assert attached.stdout is not None
        attached.stdin.write("hello\n")
        assert attached.stdout.readline() == "got hello\n"
        attached.kill()


def test_cp(pod: Pod, tmp_path: Path) -> None:
    data = os.urandom(SIZE)
    (tmp_path / "in").write_bytes(data)
    pod.cluster.kubectl("cp", tmp_path / "in", "verbs:/tmp/copied", "-c", "serves")
    assert pod.exec("sha256sum", "/tmp/copied").split()[0] == hashlib.sha256(data).hexdigest()
    pod.cluster.kubectl("cp", "verbs:/tmp/copied", tmp_path / "out", "-c", "serves")
    assert (tmp_path / "out").read_bytes() == data


def test_port_forward(pod: Pod) -> None:
    argv = pod.cluster.kubectl_argv("port-forward", "verbs", ":8080", "--address", "127.0.0.1")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as forward:
        assert forward.stdout is not None
        address = forward.stdout.readline().split()[2]  # Forwarding from 127.0.0.1:PORT -> 8080
        for _ in range(2):
            assert pod.cluster.page(f"http://{address}/") == "from the pod\n"
        forward.terminate()


def test_debug_adds_a_container_to_the_running_vm(pod: Pod) -> None:
    boot = pod.exec("cat", "/proc/sys/kernel/random/boot_id")
    words = ("--image", "localhost/busybox:1", "--image-pull-policy", "Never", "-c", "looks", "--profile", "general")
    pod.cluster.kubectl("debug", "verbs", *words, "--", "sh", "-c", "cat /proc/sys/kernel/random/boot_id; wget -qO- http://127.0.0.1:8080/")
    eventually(lambda: "terminated" in pod.status("looks").get("state", {}), lambda: pod.cluster.events("verbs"), DEADLINE)
    assert pod.cluster.kubectl("logs", "verbs", "-c", "looks") == f"{boot}from the pod\n"


def test_debug_of_one_container_sees_its_processes(pod: Pod) -> None:
    words = ("--image", "localhost/busybox:1", "--image-pull-policy", "Never", "-c", "traces", "--profile", "general", "--target", "reads")
    pod.cluster.kubectl("debug", "verbs", *words, "--", "sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline")
    eventually(lambda: "terminated" in pod.status("traces").get("state", {}), lambda: pod.cluster.events("verbs"), DEADLINE)
    assert "echo got $line" in pod.cluster.kubectl("logs", "verbs", "-c", "traces")


def test_figures_of_kubelet(pod: Pod) -> None:
    """Of containers as the guest has them, and of the pod: the control group of its VM on the node."""

    def figures() -> Any:
        summary = json.loads(pod.cluster.kubectl("get", "--raw", "/api/v1/nodes/node/proxy/stats/summary"))
        return next((one for one in summary["pods"] if one["podRef"]["name"] == "verbs"), {})

    eventually(lambda: figures().get("memory", {}).get("workingSetBytes"), lambda: figures(), DEADLINE)
    found = figures()
    assert {one["name"] for one in found["containers"]} >= {"serves", "counts", "reads"}
    for one in found["containers"]:
        assert one["memory"]["workingSetBytes"] > 0
        assert one["cpu"]["usageCoreNanoSeconds"] > 0
    assert found["memory"]["workingSetBytes"] > 50 << 20
    assert found["cpu"]["usageCoreNanoSeconds"] > max(one["cpu"]["usageCoreNanoSeconds"] for one in found["containers"])
