"""Later containerds: Debian 13's 1.7, and 2.4. What they all have in common is tried with 1.6, in test_ctr and test_cri."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.needs import needs
from tests.shim.containerds import VERSIONS, runc_shim
from tests.shim.handlers import EROFS, HANDLER, mkfs_erofs
from tests.shim.images import layered
from tests.shim.node import RUNTIME, Node, running_node, unchanged
from tests.shim.test_cri import Pod, page, running_pod
from tests.shim.test_cri import pytestmark as of_pods

pytestmark = [*of_pods, needs("mke2fs", "veritysetup")]
BLOCKFILE = """
[plugins."io.containerd.snapshotter.v1.blockfile"]
root_path = "@DIR@/blockfile"
scratch_file = "@SCRATCH@"
fs_type = "ext4"
mount_options = ["loop"]
"""
MANY = 8
only_1_7, only_2_4 = (pytest.mark.parametrize("version", [name], indirect=True, scope="module") for name in ("1.7", "2.4"))
LAYERED = "localhost/layered:1"


def configuration(version: str) -> str:
    sandbox = HANDLER.format(name="sandbox", more='sandbox_mode = "shim"' if version == "1.7" else 'sandboxer = "shim"')
    if version == "1.7":
        return BLOCKFILE + sandbox
    return BLOCKFILE + sandbox + EROFS + HANDLER.format(name="erofs", more='snapshotter = "erofs"')


@pytest.fixture(scope="module", params=["1.7", "2.4"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def later(version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node of the version. 2.4 has the erofs snapshotter, whose mkfs.erofs must be of 1.7 or later."""
    programs = [mkfs_erofs(), runc_shim()] if version != "1.7" else []
    scratch = tmp_path_factory.mktemp("blockfile") / "scratch.ext4"
    with scratch.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", scratch], check=True)
    text = configuration(version).replace("@SCRATCH@", str(scratch))
    with running_node(VERSIONS[version](), configuration=text, programs=programs, networks=2) as up:
        yield up


@pytest.fixture
def node(later: Node) -> Iterator[Node]:
    """After each test there is nothing more than before."""
    with unchanged(later):
        yield later


def test_run_exec_and_a_root_that_is_a_disk(node: Node) -> None:
    """The blockfile snapshotter gives an image with a file system, as devmapper gives a block device."""
    node.ctr(*node.run_words("--detach", "--snapshotter", "blockfile", "x"), "sleep", "1000")
    script = "grep ' / ' /proc/mounts; echo text > /file; cat /file; uname -r; echo err >&2; exit 7"
    done = node.try_ctr("task", "exec", "--exec-id", "e", "x", "sh", "-c", script)
    root, text, release = done.stdout.splitlines()
    assert root.startswith("/dev/sd") and " ext4 rw" in root
    # On cgroup v1 the client of 2.4 warns that it is deprecated.
    assert (done.returncode, text, release[-10:], done.stderr[-4:]) == (7, "text", "-innkeeper", "err\n")
    node.stop()
    node.start()
    assert node.tasks() == {"x": "RUNNING"}


@only_1_7
def test_a_pod(node: Node) -> None:
    """With a pause container. That of 2.4 is below, with disks for roots."""
    with running_pod(node, "late") as pod:
        check_pod(pod)


def test_a_pod_without_a_pause_container(node: Node) -> None:
    """By containerd's sandbox service. There is no root of the pod's own, and containerd makes none of its files."""
    node.stop()
    node.start(sandboxes=True)
    with running_pod(node, "sandboxed", "sandbox") as pod:
        check_pod(pod)
        node.stop()
        node.start(sandboxes=True)
        assert pod.exec("echo", "still here") == "still here\n"
        os.kill(node.pid(pod.container, "k8s.io"), signal.SIGKILL)
        eventually(lambda: json.loads(node.crictl("inspectp", pod.id))["status"]["state"] == "SANDBOX_NOTREADY")
        eventually(lambda: json.loads(node.crictl("inspect", pod.container))["status"]["state"] == "CONTAINER_EXITED")


def check_pod(pod: Pod) -> None:
    """The pod has its address, host name, resolver, sysctls and shared memory; its container answers, and takes commands."""
    assert page(pod) == "from the pod\n"
    pod.exec("ping", "-c", "1", "-W", "5", pod.node.gateway)
    pod.exec("ping", "-6", "-c", "1", "-W", "5", pod.node.second_gateway)
    assert "fd00:99::/32 via" in pod.exec("ip", "-6", "route", "show", "dev", "eth1")
    files = "/etc/hostname /proc/sys/net/ipv4/ip_unprivileged_port_start /config/key"
    lines = pod.exec("sh", "-c", f"cat {files}; grep nameserver /etc/resolv.conf; grep ' /dev/shm ' /proc/mounts").splitlines()
    assert lines[:4] == ["web-0", "70", "one", "nameserver 10.255.255.53"]
    assert lines[4].startswith("shm /dev/shm tmpfs")
    assert int(json.loads(pod.node.crictl("stats", "-o", "json", pod.container))["stats"][0]["memory"]["workingSetBytes"]["value"]) > 0


# The erofs snapshotter.


@pytest.fixture(scope="module")
def erofs(later: Node) -> Node:
    """The node of 2.4, with an image of many layers."""
    changes: list[dict[str, str]] = [{f"layer{number}": f"{number}\n", "top": f"{number}\n"} for number in range(MANY)]
    changes[-1] |= {".wh.layer0": ""}
    layered(later.folder / "layered.tar", LAYERED, changes)
    for namespace in ("default", "k8s.io"):
        later.ctr("--namespace", namespace, "image", "import", "--snapshotter", "erofs", later.folder / "layered.tar")
    snapshots = later.folder / "root/io.containerd.snapshotter.v1.erofs/snapshots"
    found = layer_files(snapshots)
    assert len(found) == 2 * (MANY + 1)  # containerd's namespaces share none
    for path in found[::2]:
        add_hash_tree(path)
    return later


def add_hash_tree(layer: Path) -> None:
    """Append what containerd's differ does with `enable_dmverity`, which needs a host with dm-verity. The guest has it."""
    size = layer.stat().st_size
    argv = ["veritysetup", "format", f"--hash-offset={size}", str(layer), str(layer)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    root_hash = re.search(r"Root hash:\s+(\w+)", done.stdout)
    assert root_hash is not None and size % 4096 == 0
    layer.with_name(f"{layer.name}.dmverity").write_text(json.dumps({"roothash": root_hash[1], "hashoffset": size}))


SHOW = "ls -d /layer*; cat /top /layer5; ls /sys/block | grep -c dm-; grep ' / ' /proc/mounts; echo new > /new; cat /new"


@only_2_4
def test_every_layer_is_a_disk(erofs: Node, node: Node) -> None:
    options = ("run", "--rm", "--runtime", RUNTIME, "--snapshotter", "erofs", LAYERED, "layers")
    node.groups.add(("default", "layers"))
    check_layers(node.ctr(*options, "sh", "-c", SHOW))


def check_layers(output: str) -> None:
    """Each layer is there, in its order, one file is hidden, the guest checks those with a hash, and the root can be written to."""
    lines = output.splitlines()
    assert lines[: MANY - 1] == sorted(f"/layer{number}" for number in range(1, MANY))
    top, fifth, verified, root, new = lines[MANY - 1 :]
    assert (top, fifth, new) == (str(MANY - 1), "5", "new")
    assert int(verified) >= MANY // 2
    assert root.startswith("overlay / overlay rw"), root


MERGED = "localhost/merged:1"
CHANGES: list[dict[str, str]] = [
    {"data/": "", "data/folder/": "", "data/folder/old": "old\n", "data/file": "first\n", "data/gone/": "", "data/gone/file": "x"},
    {"data/file": "second\n" * 2000, "data/kept/": "", "data/kept/file": "kept\n", "data/kept/here": "here\n"},
    {"data/.wh.gone": "", "data/kept/.wh.file": "", "data/kept/other": "other\n"},
    {"data/folder/": "", "data/folder/.wh..wh..opq": "", "data/folder/new": "new\n"},
]
"""Layers that hide files and folders of those below, change files, and make a folder opaque."""
FILES = [f"/data/{name}" for name in ("file", "folder/new", "kept/here", "kept/other")]
LIST = "find /data -type f -exec sha256sum {} + | sort -k 2; find /data -exec stat -c '%n %F %a %u %g' {} + | sort"


@only_2_4
def test_layers_that_are_merged(erofs: Node, node: Node) -> None:
    """One erofs has the names of all the layers, and these its data: below another layer, then as all of the image.

    What the guest shows is what runc shows with that snapshot. With overlayfs it shows the same files; mkfs.erofs 1.8 gives
    the folders that it merges the mode 0777.
    """
    archive = node.folder / "merged.tar"
    layered(archive, MERGED, CHANGES)
    snapshots = node.folder / "root/io.containerd.snapshotter.v1.erofs/snapshots"
    before = layer_files(snapshots)
    for snapshotter in ("erofs", "overlayfs"):
        node.ctr("image", "import", "--snapshotter", snapshotter, archive)
    chain = [before[0], *(path for path in layer_files(snapshots) if path not in before)]
    assert len(chain) == len(CHANGES) + 1  # the lowest is that of the other image too, and has a hash tree behind it
    node.groups.add(("default", "merged"))
    files = listed(node, "io.containerd.runc.v2", "overlayfs")[: len(FILES)]
    assert [line.split()[1] for line in files] == FILES
    for top, lower in ((-2, 2), (-1, 1)):
        merge(chain[: len(chain) + 1 + top])
        *seen, root, number = listed(node, RUNTIME, "erofs", "; grep ' / ' /proc/mounts; ls /sys/class/block | grep -c ^sd")
        assert seen == listed(node, "io.containerd.runc.v2", "erofs") and seen[: len(FILES)] == files
        assert (root.count("/layers/") - 2, int(number)) == (lower, len(chain) + 2), root  # its folder to write to is a layer too


def listed(node: Node, runtime: str, snapshotter: str, more: str = "") -> list[str]:
    """Return the sums of the image's files, and then the modes and owners of everything, as a container has them."""
    command = ("run", "--rm", "--runtime", runtime, "--snapshotter", snapshotter, MERGED, "merged", "sh", "-c", LIST + more)
    return node.ctr(*command).splitlines()


def layer_files(snapshots: Path) -> list[Path]:
    """Return the layers that the erofs snapshotter has, the oldest first."""
    return sorted(snapshots.glob("*/layer.erofs"), key=lambda path: int(path.parent.name))


def merge(layers: list[Path]) -> None:
    """Merge layers, the lowest first, as previews of containerd 2.3 did with `max_unmerged_layers`. Releases only use what is there."""
    merged = layers[-1].with_name("fsmeta.erofs")
    subprocess.run([mkfs_erofs(), "--aufs", "--ovlfs-strip=1", "--quiet", merged, *layers], check=True, capture_output=True)


@only_2_4
def test_layers_are_plugged_into_a_pod_and_out_again(erofs: Node, node: Node) -> None:
    with running_pod(node, "plug", "erofs") as pod:
        check_pod(pod)
        assert "virtiofs" not in pod.exec("sh", "-c", "grep ' / ' /proc/mounts")
        before = disks(pod)
        second = pod.add("layers", "sleep 1000", image={"image": LAYERED})
        check_layers(node.crictl("exec", second, "sh", "-c", SHOW))
        assert disks(pod) == before + MANY + 2  # those above busybox's, that, and the writable one
        node.crictl("rm", "--force", second)
        assert disks(pod) == before


def disks(pod: Pod) -> int:
    return int(pod.exec("sh", "-c", "ls /sys/class/block | grep -c ^sd"))
