"""Pods without a shared folder (`shared_fs = "none"`): roots are disks, and what they have of the host is copied and kept up to date."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually
from tests.needs import needs
from tests.shim.containerds import of_go_module
from tests.shim.handlers import COPIES, EROFS, HANDLER, mkfs_erofs, share_nothing
from tests.shim.node import RUNTIME, Node, running_node, unchanged
from tests.shim.test_cri import SHARED, Pod, exited, page, running_pod
from tests.shim.test_cri import pytestmark as of_pods

pytestmark = [*of_pods, needs("mke2fs")]
FOLDER = HANDLER.format(name="folder", more="").replace("shim.toml", "copies.toml")
"""Roots of the overlayfs snapshotter, and nothing to share them by."""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with running_node(of_go_module(), configuration=EROFS + COPIES + FOLDER, programs=[mkfs_erofs()]) as up:
        share_nothing(up)
        with unchanged(up):
            yield up


@pytest.fixture(scope="module")
def pod(node: Node) -> Iterator[Pod]:
    with running_pod(node, "copied", "copies", pids=SHARED) as made:
        yield made


def volume(pod: Pod, kind: str, name: str) -> Path:
    """Make the folder that kubelet has for a volume."""
    folder = pod.node.folder / "pods/u" / f"volumes/kubernetes.io~{kind}/{name}"
    folder.mkdir(parents=True)
    return folder


def write(folder: Path, version: str, files: dict[str, str], mode: int = 0o644) -> None:
    """Write the files of a config map, secret or token as kubelet does: a folder, one link that is replaced, links to that."""
    (folder / version).mkdir(mode=0o755)
    for name, text in files.items():
        path = folder / version / name
        path.write_text(text)
        path.chmod(mode)
        os.chown(path, 0, 2000)
    old = os.readlink(folder / "..data") if (folder / "..data").is_symlink() else ""
    (folder / "..data_tmp").symlink_to(version)
    (folder / "..data_tmp").rename(folder / "..data")
    for name in files:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    for link in folder.iterdir():
        if not link.name.startswith("..") and link.name not in files:
            link.unlink()
    if old:
        shutil.rmtree(folder / old)


def mount(folder: Path, place: str, *, readonly: bool = True) -> dict[str, Any]:
    return {"host_path": str(folder), "container_path": place, "readonly": readonly}


def see(pod: Pod, container: str, script: str) -> str:
    return pod.node.crictl("exec", container, "sh", "-c", script)


def test_no_folder_is_shared(pod: Pod) -> None:
    """There is a network, the pod's files, a shared pid namespace, and no virtiofsd."""
    assert page(pod) == "from the pod\n"
    assert "virtiofs" not in pod.exec("cat", "/proc/mounts")
    assert pod.exec("cat", "/config/key") == "one\n"
    assert "nameserver 10.255.255.53" in pod.exec("cat", "/etc/resolv.conf")
    assert pod.exec("sh", "-c", "cat /etc/hostname; grep -c localhost /etc/hosts").split()[0] == "web-0"
    assert "/pause" in pod.exec("ps").splitlines()[1]
    names = [(process / "comm").read_text() for process in Path("/proc").glob("[0-9]*") if pod.node.folder.name in arguments(process)]
    assert any("qemu" in name for name in names) and not any("virtiofsd" in name for name in names)


def arguments(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_volumes_change_as_kubelet_changes_them(pod: Pod) -> None:
    maps, secret, token = (volume(pod, *names) for names in (("configmap", "map"), ("secret", "key"), ("projected", "token")))
    write(maps, "..1", {"a": "a1\n", "b": "b1\n"})
    write(secret, "..1", {"key": "secret1\n"}, 0o440)
    write(token, "..1", {"token": "token1\n"})
    one = pod.node.folder / "pods/u/volume-subpaths/map/0"
    one.parent.mkdir(parents=True)
    shutil.copyfile(maps / "a", one)
    mounts = [mount(maps, "/map"), mount(secret, "/secret"), mount(token, "/token"), mount(one, "/etc/one")]
    first = pod.add("volumes", "sleep 1000", mounts=mounts)
    second = pod.add("reader", "sleep 1000", mounts=mounts[:1])
    show = "cat /map/* /secret/* /token/* /etc/one; ls -A /map; stat -Lc '%a %g' /secret/key"
    assert see(pod, first, show).split() == ["a1", "b1", "secret1", "token1", "a1", "..1", "..data", "a", "b", "440", "2000"]
    write(maps, "..2", {"a": "a2\n", "c": "c2\n"})
    write(secret, "..2", {"key": "secret2\n"}, 0o400)
    write(token, "..2", {"token": "token2\n" * 100_000})
    changed = ["a2", "c2", "secret2", "..2", "..data", "a", "c", "400", "2000"]
    eventually(lambda: see(pod, first, show.replace("/token/* /etc/one", "")).split() == changed)
    eventually(lambda: see(pod, first, "wc -c < /token/token").strip() == "700000")
    assert see(pod, second, "cat /map/a; touch /map/x 2>&1 || true").startswith("a2\ntouch: /map/x: Read-only")
    pod.node.crictl("rm", "--force", first)
    write(maps, "..3", {"a": "a3\n"})
    eventually(lambda: see(pod, second, "cat /map/*; ls -A /map").split() == ["a3", "..3", "..data", "a"])
    pod.node.crictl("rm", "--force", second)


def test_a_folder_of_the_host_that_is_only_read(pod: Pod) -> None:
    folder = pod.node.folder / "read"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/file").write_text("one\n")
    reader = pod.add("folder", "sleep 1000", mounts=[mount(folder, "/read")])
    (folder / "sub/file").write_text("two\n")
    (folder / "later").mkdir()
    (folder / "later/file").write_text("three\n")
    eventually(lambda: see(pod, reader, "cat /read/*/file").split() == ["three", "two"])
    shutil.rmtree(folder / "sub")
    (folder / "later/file").write_text("four\n")
    eventually(lambda: see(pod, reader, "cat /read/*/file; ls /read").split() == ["four", "later"])
    pod.node.crictl("rm", "--force", reader)


def test_an_empty_dir_is_the_pods(pod: Pod) -> None:
    """Containers share it, and a folder of it by subPath. It outlives them, and nothing of it is on the host."""
    folder, place = volume(pod, "empty-dir", "cache"), pod.node.folder / "pods/u/volume-subpaths/cache/0"
    folder.chmod(0o777)
    for path in (folder / "inside", place):
        path.mkdir(parents=True)
    subprocess.run(["mount", "--bind", folder / "inside", place], check=True)
    try:
        first = pod.add("writes", "sleep 1000", mounts=[mount(folder, "/cache", readonly=False)])
        second = pod.add("inside", "sleep 1000", mounts=[mount(place, "/inside", readonly=False)])
        see(pod, first, "echo kept > /cache/file; stat -c %a /cache | grep 777; mkdir -p /cache/inside; echo in > /cache/inside/file")
        assert see(pod, second, "cat /inside/file; echo out > /inside/other") == "in\n"
        assert see(pod, first, "cat /cache/inside/other") == "out\n"
        pod.node.crictl("rm", "--force", first)
        third = pod.add("again", "sleep 1000", mounts=[mount(folder, "/cache", readonly=False)])
        assert see(pod, third, "cat /cache/file") == "kept\n"
        assert [path.name for path in folder.rglob("*")] == ["inside"]
        for container in (second, third):
            pod.node.crictl("rm", "--force", container)
    finally:
        subprocess.run(["umount", place], check=True)


def test_the_last_message_is_on_the_host_with_the_exit(pod: Pod) -> None:
    logs = [pod.node.folder / "pods/u/containers" / name for name in ("says/0", "silent/0")]
    for log in logs:
        log.parent.mkdir(parents=True)
        log.touch()
    says = pod.add("says", "echo no disk left > /var/message; exit 3", mounts=[mount(logs[0], "/var/message", readonly=False)])
    silent = pod.add("silent", "true", mounts=[mount(logs[1], "/dev/termination-log", readonly=False)])
    for container in (says, silent):
        eventually(lambda container=container: exited(pod, container))  # type: ignore[misc]
        pod.node.crictl("rm", container)
    assert [log.read_text() for log in logs] == ["no disk left\n", ""]


def test_what_cannot_be_copied_is_refused(pod: Pod) -> None:
    folder = pod.node.folder / "refused"
    folder.mkdir()
    (folder / "file").touch()
    for name, source in (("folder-written", folder), ("file-written", folder / "file")):
        with pytest.raises(AssertionError, match=f"/data: what a container writes to {source} would be lost"):
            pod.add(name, "true", mounts=[mount(source, "/data", readonly=False)])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
    with pytest.raises(AssertionError, match="socket is neither a file, a folder nor a link"):
        pod.add("socket", "true", mounts=[mount(folder, "/data")])
    (folder / "socket").unlink()
    with (folder / "file").open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(AssertionError, match="too large to be copied"):
        pod.add("large", "true", mounts=[mount(folder, "/data")])


def test_a_root_of_the_host_is_refused(node: Node) -> None:
    with pytest.raises(AssertionError, match="a root must be made of disks"), running_pod(node, "rootless", "folder"):
        pass
    options = ("--runtime-config-path", f"{node.folder}/copies.toml", "--rm")
    done = node.run("x", "true", options=options)
    assert done.returncode != 0 and "a root must be made of disks" in done.stderr


def test_alone_in_its_vm(node: Node) -> None:
    read = node.folder / "alone"
    read.mkdir()
    (read / "file").write_text("alone\n")
    node.groups.add(("default", "alone"))
    options = ("--runtime", RUNTIME, "--runtime-config-path", f"{node.folder}/copies.toml", "--snapshotter", "erofs")
    volumes = ("--mount", f"type=bind,src={read},dst=/read,options=rbind:ro")
    node.ctr("image", "import", "--snapshotter", "erofs", node.folder / "image.tar")
    assert node.ctr("run", "--rm", *options, *volumes, "localhost/pause:1", "alone", "cat", "/read/file") == "alone\n"
