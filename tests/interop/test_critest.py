"""Kubernetes' own judge of CRI, critest, with pods in our guest: what it has of pods, of containers' life, their volumes and logs.

Its other checks pull images of its own from registries. It takes the node for one whose groups systemd makes, as containerd 1.6 cannot tell
it otherwise; the shim then asks systemd for a sandbox's group, but not where `sandbox_cgroup_only` is false.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import go_helpers
from tests.interop.configurations import changed
from tests.interop.node import CRI_TOOLS, IMAGE, SECONDS, Node
from tests.interop.running_node import running_node
from tests.interop.test_shim import pytestmark as pytestmark

JUDGED = "judged"
HANDLER = """
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.judged]
      runtime_type = "io.containerd.kata.v2"
      privileged_without_host_devices = true
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.judged.options]
        ConfigPath = "@DIR@/judged.toml"
"""

PACKAGE = "sigs.k8s.io/cri-tools/cmd/critest"
CHECKS = (
    "running PodSandbox",
    "stopping PodSandbox",
    "removing PodSandbox",
    "starting container",
    "stopping container",
    "removing running container",
    "execSync",
    "starting container with volume",
    "starting container with volume when host path is a symlink",
    "starting container with log",
)


def judged_node(folder: Path) -> Node:
    return Node(folder, containerd=HANDLER)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with running_node(judged_node) as up:
        changed(up.folder / "kata.toml", up.folder / "judged.toml", {"sandbox_cgroup_only": "sandbox_cgroup_only = false"})
        yield up


def test_checks_of_pods_and_containers(node: Node, tmp_path: Path) -> None:
    program = go_helpers.build("test-critest", CRI_TOOLS, PACKAGE, tests=True) / "critest.test"
    images = tmp_path / "images.yaml"
    images.write_text(f"defaultTestContainerImage: {IMAGE}\nwebServerTestImage: {IMAGE}\n")
    focus = f"runtime should support ({'|'.join(CHECKS)}) \\[Conformance\\]"
    socket = f"unix://{node.folder}/containerd.sock"
    options = {"runtime-endpoint": socket, "image-endpoint": socket, "runtime-handler": JUDGED, "test-images-file": str(images)}
    argv = [str(program), *(f"-{name}={value}" for name, value in options.items()), f"-ginkgo.focus={focus}", "-ginkgo.no-color"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=2 * SECONDS, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"{len(CHECKS)} Passed | 0 Failed" in done.stdout, done.stdout[-2000:]
