"""containerd's specification as the guest gets it: what is dropped, what is bound, what is refused."""

import copy
import socket
from pathlib import Path
from typing import Any

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.image.proto import to_proto
from innkeeper.shim import spec, volumes

NAMESPACES = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]
DOCUMENT: dict[str, Any] = {
    "ociVersion": "1.1.0",
    "process": {"args": ["sh"], "cwd": "/", "apparmorProfile": "cri-containerd.apparmor.d", "selinuxLabel": "a:b:c"},
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "pod",
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]}],
    "annotations": {"a": "b"},
    "linux": {
        "namespaces": NAMESPACES,
        "cgroupsPath": "/default/one",
        "sysctl": {"net.core.somaxconn": "2"},
        "resources": {
            "cpu": {"shares": 2, "cpus": "0-3", "mems": "0", "quota": 150000, "period": 100000},
            "memory": {"limit": 1 << 28},
            "unified": {"memory.oom.group": "1"},
        },
    },
}


def document(**linux: object) -> dict[str, Any]:
    made = copy.deepcopy(DOCUMENT)
    made["linux"].update(linux)
    return made


def test_what_is_the_hosts_is_dropped_and_the_rest_can_be_sent() -> None:
    plan = spec.plan(document(), "c-one", {"net.core.somaxconn": "1", "kernel.shm_rmid_forced": "1"})
    made = plan.document
    assert made["root"] == {"path": f"{volumes.SHARE}/c-one/rootfs", "readonly": True}
    assert made["process"] == {"args": ["sh"], "cwd": "/", "apparmorProfile": "cri-containerd.apparmor.d"}
    assert made["linux"] == {
        "namespaces": [{"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
        "sysctl": {"net.core.somaxconn": "2", "kernel.shm_rmid_forced": "1"},
        "resources": {"cpu": {"shares": 2, "quota": 150000, "period": 100000}, "memory": {"limit": 1 << 28}},
    }
    assert "hostname" not in made
    assert plan.pid_namespace == ""
    assert to_proto(made).Linux.Resources.CPU.Quota == 150000


def test_selinux_labels_are_for_a_guest_that_has_it() -> None:
    for selinux in (False, True):
        plan = spec.plan(document(mountLabel="a:b:d"), "c-one", {}, selinux=selinux)
        assert (plan.document["process"].get("selinuxLabel"), plan.document["linux"].get("mountLabel")) == (
            ("a:b:c", "a:b:d") if selinux else (None, None)
        )


def test_a_pid_namespace_with_a_path_is_that_of_another_container() -> None:
    shared = [{"type": "pid", "path": "/proc/1/ns/pid"}, *NAMESPACES[1:]]
    plan = spec.plan(document(namespaces=shared), "c-one", {})
    assert plan.pid_namespace == "/proc/1/ns/pid"
    assert {"type": "pid", "path": "container:c-two"} in spec.joining(plan.document, "c-two")["linux"]["namespaces"]


def test_files_and_folders_are_bound_and_shm_is_the_guests(tmp_path: Path) -> None:
    file, folder = tmp_path / "hosts", tmp_path / "folder"
    file.touch()
    folder.mkdir()
    made = document()
    made["mounts"] += [
        {"destination": "/etc/hosts", "type": "bind", "source": str(file), "options": ["rbind", "rprivate", "ro"]},
        {"destination": "/data", "source": str(folder), "options": ["rbind", "rw"]},
        {"destination": "/dev/shm", "type": "bind", "source": "/run/x/shm", "options": ["rbind", "ro"]},
    ]
    plan = spec.plan(made, "c-one", {})
    assert plan.binds == (volumes.Bind("volumes/1/hosts", file, True), volumes.Bind("volumes/2", folder, False))
    assert [mount["source"] for mount in plan.document["mounts"]] == [
        "proc",
        f"{volumes.SHARE}/c-one/volumes/1/hosts",
        f"{volumes.SHARE}/c-one/volumes/2",
        volumes.SHM,
    ]


@pytest.mark.parametrize(
    ("option", "below", "bind", "guest"),
    [
        ("ro", False, (True, True), "ro"),
        ("ro", True, (True, False), "rw"),  # the host's mount is read-only, what is below it is not
        ("rro", True, (True, True), "ro"),
        ("rw", True, (False, False), "rw"),
    ],
)
def test_read_only_with_and_without_what_is_mounted_below(
    option: str, below: bool, bind: tuple[bool, bool], guest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [tmp_path / "sub", tmp_path] if below else [tmp_path]
    monkeypatch.setattr("innkeeper.shim.volumes.below", lambda folder: points)
    made = document()
    made["mounts"] += [{"destination": "/data", "type": "bind", "source": str(tmp_path), "options": ["rbind", "rprivate", option]}]
    plan = spec.plan(made, "c-one", {})
    assert plan.binds == (volumes.Bind("volumes/1", tmp_path, *bind),)
    assert plan.document["mounts"][1]["options"] == ["rbind", "rprivate", guest]


@pytest.mark.parametrize("kind", ["network", "pid", "ipc", "uts"])
def test_the_hosts_namespaces_are_refused(kind: str) -> None:
    others = [namespace for namespace in NAMESPACES if namespace["type"] != kind]
    with pytest.raises(InnkeeperError, match=f"the host's {kind} namespace"):
        spec.check(document(namespaces=others))


def test_what_a_vm_cannot_do_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InnkeeperError, match=r"linux\.devices: /dev/kvm"):
        spec.check(document(devices=[{"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232}]))
    with pytest.raises(InnkeeperError, match="user namespaces"):
        spec.check(document(namespaces=[*NAMESPACES, {"type": "user"}]))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        for source, options, message in (
            (str(tmp_path / "s"), ["rbind"], "neither a folder nor a regular file"),
            (str(tmp_path / "none"), ["rbind"], "No such file"),
            (str(tmp_path), ["rbind", "rshared"], "bidirectional propagation"),
        ):
            made = document()
            made["mounts"] = [{"destination": "/x", "type": "bind", "source": source, "options": options}]
            with pytest.raises(InnkeeperError, match=message):
                spec.plan(made, "c-one", {})


def test_sizes() -> None:
    assert spec.size(document()) == spec.Size(1 << 28, 2, shares=2)
    assert spec.size(document(resources={})) == spec.Size(0, 0)
    notes = {"memory": str(1 << 29), "cpu-quota": "50000", "cpu-period": "100000"}
    annotations = {spec.CONTAINER_TYPE: "sandbox", **{f"io.kubernetes.cri.sandbox-{name}": value for name, value in notes.items()}}
    assert spec.size({**document(), "annotations": annotations}) == spec.Size(1 << 29, 1)


def test_limits_that_a_vm_cannot_give() -> None:
    spec.check_fits({"memory": {"limit": 1 << 28}, "cpu": {"quota": 100000}, "pids": {"limit": 5}}, 1 << 28, 1)
    spec.check_fits({"memory": {"limit": -1}, "cpu": {"quota": -1}}, 1 << 28, 1)
    with pytest.raises(InnkeeperError, match=r"memory\.limit: 268435457 bytes, and the VM has 268435456"):
        spec.check_fits({"memory": {"limit": (1 << 28) + 1}}, 1 << 28, 1)
    with pytest.raises(InnkeeperError, match=r"cpu\.quota: 3 processors, and the VM has 2"):
        spec.check_fits({"cpu": {"quota": 201, "period": 100}}, 1 << 28, 2)


def test_what_can_be_set_for_a_pod_as_a_whole() -> None:
    spec.check_pod_resources({"cpu": {"shares": 2, "quota": 5, "cpus": "0"}, "memory": {"limit": 1, "swap": 0}, "pids": {}})
    for resources, name in (
        ({"memory": {"swap": 1}}, "memory.swap"),
        ({"pids": {"limit": 5}}, "pids"),
        ({"unified": {"a": "b"}}, "unified"),
    ):
        with pytest.raises(InnkeeperError, match=f"linux.resources.{name}: it cannot be set for a pod's VM"):
            spec.check_pod_resources(resources)
