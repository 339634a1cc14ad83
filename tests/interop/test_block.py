"""Containers whose root is a block device, in a guest that shares no folder with its host: files are copied into it.

containerd has the blockfile snapshotter since 1.7; Debian 12's is 1.6.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.guest.host_programs import debian_program
from tests.eventually import eventually
from tests.interop.kubelet import volumes as volumes
from tests.interop.kubelet import write_map
from tests.interop.node import Node
from tests.interop.pods import Pod
from tests.interop.running_node import running_node
from tests.interop.test_pods import INNKEEPER
from tests.interop.test_shim import pytestmark as pytestmark

BLOCKFILE = """
[plugins."io.containerd.snapshotter.v1.blockfile"]
  root_path = "@DIR@/blockfile"
  scratch_file = "@DIR@/scratch.ext4"
  fs_type = "ext4"
  mount_options = ["loop"]
"""
SCRATCH_BYTES = 64 << 20


def block_node(folder: Path) -> Node:
    """A node of these containers."""
    scratch = folder / "scratch.ext4"
    with scratch.open("wb") as file:
        file.truncate(SCRATCH_BYTES)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", scratch], check=True)
    containerd = debian_program("containerd", "/usr/bin/containerd")
    return Node(folder, snapshotter="blockfile", shared_fs="none", containerd=BLOCKFILE, programs=[containerd])


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with running_node(block_node) as up:
        yield up


def test_the_root_is_a_block_device(node: Node) -> None:
    done = node.run("block", "sh", "-c", "grep ' / ' /proc/mounts; echo text > /file; cat /file; exit 7")
    device, text = done.stdout.splitlines()
    assert device.startswith("/dev/vd"), done.stdout
    assert " ext4 rw" in device
    assert (text, done.returncode) == ("text", 7)


def test_no_folder_is_shared(node: Node) -> None:
    assert "virtiofs" not in node.run("unshared", "cat", "/proc/mounts").stdout


def test_a_config_map_changes_in_a_running_container(node: Node, volumes: Path, tmp_path: Path) -> None:
    folder = volumes / "kubernetes.io~configmap/settings"
    write_map(folder, "..2026_11_28_01_00_00.1", "first")
    file = tmp_path / "hosts"
    file.write_text("127.0.0.1 localhost copied\n")
    pod = Pod(node, "map", INNKEEPER)
    try:
        id = pod.start("main", "exec sleep 1000", [(folder, "/settings"), (file, "/etc/hosts")])
        assert pod.crictl("exec", id, "cat", "/settings/key", "/etc/hosts") == "first127.0.0.1 localhost copied"
        write_map(folder, "..2026_11_28_02_00_00.2", "second")
        assert eventually(lambda: pod.crictl("exec", id, "cat", "/settings/key").removeprefix("first"), every=0.5) == "second"
        assert pod.attempt("exec", id, "sh", "-c", "echo x > /settings/key").returncode != 0
    finally:
        pod.remove()
