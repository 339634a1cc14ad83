"""A pod's volumes as the kubelet and containerd lay them out and as Kata's shim passes them on, by whole CreateContainer requests.

The host's side of the share is a folder here. Storages and the mounts of the specification are those that the shim was seen to send:
a config map and a secret by the driver that copies, with the options of the container's own mount; all else by the share itself.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from innkeeper.wire.pb import agent_pb2 as pb
from tests.eventually import eventually
from tests.needs import needs
from tests.root.agent_helpers import NativeAgent, native_agent, shim_document

pytestmark = [pytest.mark.root, needs("cgroup2", "busybox", "module:prctl", "module:pyseccomp")]

SHARED = "/run/kata-containers/shared/containers"
SHM = "/run/kata-containers/sandbox/shm"
EPHEMERAL = "/run/kata-containers/sandbox/ephemeral"
PODS = "/var/lib/kubelet/pods/0a1b"
READ_ONLY, READ_WRITE = ("rbind", "rprivate", "ro"), ("rbind", "rprivate", "rw")


class Volume(NamedTuple):
    """A mount of containerd's: where the kubelet has it, where the container, and containerd's options for it."""

    source: str
    destination: str
    options: tuple[str, ...] = READ_ONLY


CONFIG = Volume(f"{PODS}/volumes/kubernetes.io~configmap/settings", "/etc/settings")
SECRET = Volume(f"{PODS}/volumes/kubernetes.io~secret/keys", "/etc/keys", ("rbind", "rslave", "ro"))
TOKEN = Volume(f"{PODS}/volumes/kubernetes.io~projected/kube-api-access", "/var/run/secrets/kubernetes.io/serviceaccount")
LABELS = Volume(f"{PODS}/volumes/kubernetes.io~downward-api/podinfo", "/etc/podinfo", ("rbind", "rprivate", "rro"))
CSI = Volume(f"{PODS}/volumes/kubernetes.io~csi/pvc-1/mount", "/data", READ_WRITE)
LOCAL = Volume(f"{PODS}/volumes/kubernetes.io~local-volume/pv", "/local", ("rbind", "rslave", "rw"))
HOST = Volume("/srv/host", "/srv/host", ("rbind", "rshared", "rw"))
SUBPATH_FILE = Volume(f"{PODS}/volume-subpaths/settings/main/0", "/etc/one.conf")
SUBPATH_FOLDER = Volume(f"{PODS}/volume-subpaths/pvc-1/main/1", "/var/cache", READ_WRITE)
TERMINATION = Volume(f"{PODS}/containers/main/4f5e", "/dev/termination-log", READ_WRITE)
HOSTS = Volume(f"{PODS}/etc-hosts", "/etc/hosts", READ_WRITE)
RESOLV = Volume("/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/p/resolv.conf", "/etc/resolv.conf")
FOLDERS = (TOKEN, LABELS, CSI, LOCAL, HOST, SUBPATH_FOLDER)
FILES = (SUBPATH_FILE, TERMINATION, HOSTS, RESOLV)


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[NativeAgent]:
    with native_agent(tmp_path) as agent:
        shm = pb.Storage(driver="ephemeral", source="shm", fstype="tmpfs", mount_point=SHM)
        shm.options.extend(("noexec", "nosuid", "nodev", "mode=1777", "size=67108864"))
        agent.sandbox(storages=[shm])
        (agent.root / SHARED[1:]).mkdir(parents=True)
        yield agent


class Pod:
    """The shim of one container: shares each volume under a name of its own, and notes what it must send."""

    def __init__(self, guest: NativeAgent, root: Path) -> None:
        self.guest = guest
        self.root = root
        self.storages: list[pb.Storage] = []
        self.mounts: list[dict[str, Any]] = []

    def share(self, volume: Volume) -> Path:
        """The volume's place on the host's side, yet to be filled."""
        name = f"c1-{os.urandom(8).hex()}-{os.path.basename(volume.destination)}"
        source = f"{SHARED}/{name}"
        if re.search(r"/kubernetes\.io~(configmap|secret)/[^/]+$", volume.source):
            copy = f"{SHARED}/watchable/{name}"
            self.storages.append(pb.Storage(driver="watchable-bind", source=source, fstype="bind", mount_point=copy))
            self.storages[-1].options.extend(volume.options)
            self._mount(volume.destination, copy, volume.options)
        else:
            self._mount(volume.destination, source, volume.options)
        return self.guest.root / SHARED[1:] / name

    def empty_dir(self, destination: str, group: int) -> None:
        """One on the guest's disk."""
        place = f"{SHARED}/p/rootfs/local/{os.path.basename(destination)}"
        self.storages.append(pb.Storage(driver="local", source="local", fstype="local", mount_point=place))
        self.storages[-1].options.extend(("mode=0777", f"fsgid={group}"))
        self._mount(destination, place, READ_WRITE)

    def memory(self, destination: str, group: int) -> None:
        """One of medium Memory."""
        place = f"{EPHEMERAL}/{os.path.basename(destination)}"
        self.storages.append(pb.Storage(driver="ephemeral", source="tmpfs", fstype="tmpfs", mount_point=place, options=[f"fsgid={group}"]))
        self._mount(destination, place, READ_WRITE)

    def _mount(self, destination: str, source: str, options: tuple[str, ...]) -> None:
        self.mounts.append({"destination": destination, "type": "bind", "source": source, "options": list(options)})

    def spec(self, script: str) -> dict[str, Any]:
        spec = shim_document(self.root, "sh", "-c", script)
        shm = {"destination": "/dev/shm", "type": "bind", "source": SHM, "options": ["rbind"]}
        spec["mounts"] = [*(mount for mount in spec["mounts"] if mount["destination"] != "/dev/shm"), shm, *self.mounts]
        return spec


def publish(folder: Path, generation: str, files: dict[str, str]) -> None:
    """As the kubelet writes a volume: a folder a generation, a link to it that is exchanged, a link a file through that one."""
    data = folder / f"..2026_11_28_{generation}"
    data.mkdir(parents=True)
    for name, text in files.items():
        (data / name).write_text(text)
        os.chown(data / name, 0, 2000)
        (data / name).chmod(0o440)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..data_tmp").symlink_to(data.name)
    (folder / "..data_tmp").rename(folder / "..data")
    for old in folder.glob("..2026_*"):
        if old != data:
            for path in old.iterdir():
                path.unlink()
            old.rmdir()


def test_every_kind_of_volume(guest: NativeAgent, container_root: Path) -> None:
    pod = Pod(guest, container_root)
    for volume in (CONFIG, SECRET, TOKEN, LABELS):
        publish(pod.share(volume), "1", {"key": f"of {volume.destination}\n"})
    for volume in FOLDERS[2:]:
        pod.share(volume).mkdir()
    log = Path()
    for volume in FILES:
        file = pod.share(volume)
        file.write_text(f"of {volume.destination}\n")
        log = file if volume is TERMINATION else log
    pod.empty_dir("/empty", 2000)
    pod.memory("/memory", 2000)
    writable = [volume.destination for volume in FOLDERS if "rw" in volume.options]
    read_only = [volume.destination for volume in (CONFIG, SECRET, TOKEN, LABELS)]
    script = [
        *(f"cat {path}/key" for path in read_only),
        *(f"cat {volume.destination}" for volume in (SUBPATH_FILE, HOSTS, RESOLV)),
        *(f"if echo x > {path}/new; then echo {path} can be written; fi" for path in read_only),
        *(f"echo x > {path}/new && cat {path}/new" for path in (*writable, "/empty", "/memory", "/dev/shm")),
        "stat -c '%u:%g %a' -L /etc/settings/key /empty /memory",
        "echo bye > /dev/termination-log",
    ]
    result = guest.run("c1", pod.spec("\n".join(script)), storages=pod.storages)
    expected = [f"of {path}" for path in (*read_only, "/etc/one.conf", "/etc/hosts", "/etc/resolv.conf")]
    expected += ["x"] * (len(writable) + 3) + ["0:2000 440", "0:2000 2777", "0:2000 3777"]
    assert result.stdout.splitlines()[: len(expected)] == expected
    assert len(re.findall(r"can't create .*: Read-only file system", result.stderr)) == len(read_only)
    assert log.read_text() == "bye\n"
    assert f"{SHARED}/watchable" not in guest.mounts
    assert (guest.root / EPHEMERAL[1:] / "memory/new").read_text() == "x\n"


@pytest.mark.parametrize("volume", [CONFIG, SECRET], ids=["config map", "secret"])
def test_changes_are_followed(guest: NativeAgent, container_root: Path, volume: Volume) -> None:
    """In a running container, and in one that starts again with the same volume."""
    pod = Pod(guest, container_root)
    folder = pod.share(volume)
    publish(folder, "1", {"colour": "red", "size": "7"})
    spec = pod.spec("sleep 1000")
    for generation in (2, 4):
        guest.start("c1", spec, storages=pod.storages)

        def listing() -> str:
            path = volume.destination
            return guest.exec("c1", f"e{os.urandom(4).hex()}", "sh", "-c", f"ls {path}; cat {path}/colour").stdout

        publish(folder, str(generation), {"colour": "blue", "weight": "3"})
        (folder / "size").unlink(missing_ok=True)
        eventually(lambda: listing() == "colour\nweight\nblue")
        publish(folder, str(generation + 1), {"colour": "green", "weight": "3"})
        eventually(lambda: listing() == "colour\nweight\ngreen")
        guest.agent.remove_container("c1")
        assert f"{SHARED}/watchable" not in guest.mounts


def test_one_copy_for_two_containers(guest: NativeAgent, container_root: Path) -> None:
    """Each container has a copy of its own; the end of one leaves the other's."""
    pods = [Pod(guest, container_root) for _ in range(2)]
    for pod in pods:
        publish(pod.share(CONFIG), "1", {"key": "value"})
    for number, pod in enumerate(pods):
        guest.start(f"c{number}", pod.spec("sleep 1000"), storages=pod.storages)
    guest.agent.remove_container("c0")
    assert guest.exec("c1", "e1", "cat", "/etc/settings/key").stdout == "value"
    guest.agent.remove_container("c1")
    assert f"{SHARED}/watchable" not in guest.mounts


def test_a_raw_block_volume(guest: NativeAgent, container_root: Path) -> None:
    """The disk itself, bound from where the storage has put its node: its numbers are the guest's."""
    nodes = [f"/dev/{path.name}" for path in Path("/sys/class/block").iterdir() if Path(f"/dev/{path.name}").is_block_device()]
    if not nodes:
        pytest.fail("this machine has no block device at all")
    place = "/run/kata-containers/sandbox/storage/L2Rldi94"
    storage = pb.Storage(driver="blk", source=sorted(nodes)[0], fstype="bind", mount_point=place, options=list(READ_WRITE))
    pod = Pod(guest, container_root)
    pod._mount("/dev/disk", place, READ_WRITE)
    status = os.stat(sorted(nodes)[0])
    assert stat.S_ISBLK(status.st_mode)
    result = guest.run("c1", pod.spec("stat -c '%F %t:%T' /dev/disk"), storages=[storage])
    assert result.stdout == f"block special file {os.major(status.st_rdev):x}:{os.minor(status.st_rdev):x}\n"
    assert place not in guest.mounts
