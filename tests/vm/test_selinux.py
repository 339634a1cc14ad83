"""SELinux in the guest's variant of that name: containers kept apart by their categories, and what none of them may."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from innkeeper.client import RpcError
from tests.images import busybox_image, debian_image
from tests.vm.command import succeed
from tests.vm.pod import PROBE_BEGINS, Change, Document, Pod, Result, booted, in_user_namespace

pytestmark = pytest.mark.vm

A, B = "level:s0:c1,c2", "level:s0:c3,c4"
ROOT_OF = "/run/kata-containers/{}/rootfs"

PROBE = (
    PROBE_BEGINS
    + r"""
def become(domain):
    with open("/proc/self/attr/current", "wb", buffering=0) as file:
        file.write(b"system_u:system_r:%s:s0" % domain)

print(json.dumps({
    "label": open("/proc/self/attr/current").read().strip("\0\n"),
    "mount": called(libc.mount, b"none", b"/mnt", b"tmpfs", 0, None),
    "umount": called(libc.umount2, b"/dev/mqueue", 0),
    "user namespace": called(libc.unshare, 0x10000000),
    "kernel sysctl": opened("/proc/sys/kernel/core_pattern", os.O_WRONLY),
    "vm sysctl": opened("/proc/sys/vm/drop_caches", os.O_WRONLY),
    "net sysctl": opened("/proc/sys/net/ipv4/ip_default_ttl", os.O_WRONLY),
    "ipc sysctl": opened("/proc/sys/kernel/shmmax", os.O_WRONLY),
    "irq": opened("/proc/irq/default_smp_affinity", os.O_WRONLY),
    "sysfs": opened("/sys/kernel/rcu_expedited", os.O_WRONLY),
    "cgroup": opened("/sys/fs/cgroup/cgroup.procs", os.O_WRONLY),
    "vsock": tried(lambda: socket.socket(40, socket.SOCK_STREAM).close()),
    "inet": tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).bind(("127.0.0.1", 9999))),
    "netlink": tried(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()),
    "file": opened("/root/file", os.O_WRONLY | os.O_CREAT),
    "shared memory": opened("/dev/shm/file", os.O_RDWR | os.O_CREAT),
    "memfd": tried(lambda: os.write(os.memfd_create("x"), b"x")),
    "queue": "done" if libc.mq_open(b"/queue", os.O_RDWR | os.O_CREAT, 0o600, None) >= 0 else "failed",
    "device": tried(lambda: open("/dev/urandom", "rb").read(1)),
    "key": called(libc.syscall, 248, b"user", b"name", b"x", 1, -3),
    "other label": tried(become, b"spc_t"),
    "agent's label": tried(become, b"agent_t"),
}))
"""
)

WALLS_DOWN: dict[str, Any] = {"seccomp": "unconfined", "unmask": True, "cap_add": ["ALL"], "no_new_privileges": False}
DENIED = {"mount", "umount", "user namespace", "kernel sysctl", "vm sysctl", "irq", "sysfs", "vsock", "other label", "agent's label"}


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    with booted(debian_image(), tmp_path_factory.mktemp("selinux"), "selinux") as running:
        yield running


@pytest.fixture(scope="module")
def neighbour(pod: Pod) -> str:
    """A container with the categories of A, alive for all tests, and a file in it."""
    pod.create("neighbour", ["sh", "-c", "echo secret > /root/file; sleep 100000"], label=[A])
    return "neighbour"


def writable(document: Document) -> None:
    for mount in document["mounts"]:
        mount["options"] = ["rw" if option == "ro" else option for option in mount["options"]]


def probe(pod: Pod, **options: Any) -> dict[str, str]:
    result = pod.run("python3", "-c", PROBE, change=writable, **WALLS_DOWN, **options)
    assert result.status == 0, result.stderr
    told: dict[str, str] = json.loads(result.stdout)
    return told


def test_the_policy_holds_when_every_other_wall_is_down(pod: Pod) -> None:
    held, free = probe(pod, label=[A]), probe(pod, label=["disable"])
    assert (held.pop("label"), free.pop("label")) == ("system_u:system_r:container_t:s0:c1,c2", "system_u:system_r:spc_t:s0")
    assert {name for name, answer in held.items() if answer in ("EACCES", "EPERM")} == DENIED
    assert {name: answer for name, answer in held.items() if name not in DENIED} == dict.fromkeys(held.keys() - DENIED, "done")
    assert free.pop("agent's label") == "EACCES", "a container without a label is not the agent"
    assert not {"EACCES", "EPERM"} & set(free.values()), "with another wall in the way, what is above shows nothing"


def seeing(id: str) -> Change:
    """Bind another container's root into this one, at /other."""

    def change(document: Document) -> None:
        document["mounts"].append({"destination": "/other", "type": "bind", "source": ROOT_OF.format(id), "options": ["rbind"]})

    return change


def test_a_containers_files_are_its_own(pod: Pod, neighbour: str) -> None:
    def read(level: str) -> Result:
        return pod.run("cat", "/other/root/file", change=seeing(neighbour), label=[level])

    assert read(A).stdout == "secret\n"
    other = read(B)
    assert (other.status, other.stdout) == (1, "")
    assert "Permission denied" in other.stderr
    assert pod.run("sh", "-c", "echo x > /other/root/file", change=seeing(neighbour), label=[B]).status != 0
    assert pod.exec(neighbour, "cat", "/root/file").stdout == "secret\n"


def test_a_containers_processes_are_its_own(pod: Pod, neighbour: str) -> None:
    pid = next(container.pid for container in pod.agent.list_containers() if container.id == neighbour)

    def join(document: Document) -> None:
        namespaces = document["linux"]["namespaces"]
        namespaces[:] = [entry for entry in namespaces if entry["type"] != "pid"] + [{"type": "pid", "path": f"/proc/{pid}/ns/pid"}]

    def look(level: str) -> str:
        script = "kill -0 1 && echo signalled; cat /proc/1/environ >/dev/null && echo read"
        return pod.run("sh", "-c", script, change=join, label=[level], cap_add=["SYS_PTRACE"]).stdout

    assert look(A) == "signalled\nread\n"
    assert look(B) == ""


def test_labels_are_seen_inside_and_inherited_by_exec(pod: Pod, neighbour: str) -> None:
    label = ("cat", "/proc/self/attr/current")
    assert pod.exec(neighbour, *label).stdout.strip("\0\n") == "system_u:system_r:container_t:s0:c1,c2"
    own = pod.exec(neighbour, *label, selinuxLabel="system_u:system_r:spc_t:s0").stdout
    assert own.strip("\0\n") == "system_u:system_r:spc_t:s0"
    script = (
        "import os; print(*[os.getxattr(path, 'security.selinux').decode() for path in ('/root', '/dev/shm', '/dev/null', '/etc/hosts')])"
    )
    labels = pod.run("python3", "-c", script, label=[B]).stdout.replace("\0", "").split()
    assert labels == ["system_u:object_r:container_file_t:s0:c3,c4"] * 3 + ["system_u:object_r:tmpfs_t:s0"]


def test_a_user_namespace_changes_nothing(pod: Pod) -> None:
    result = pod.run(
        "sh", "-c", "cat /proc/self/attr/current; echo; echo x > /tmp/file && cat /tmp/file", change=in_user_namespace, label=[B]
    )
    assert (result.stdout.replace("\0", "").split(), result.stderr) == (["system_u:system_r:container_t:s0:c3,c4", "x"], "")


def test_the_command_line_labels_what_it_mounts(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the host\n")
    script = "cat /data/in; echo out > /data/out; echo y > /t/y && cat /t/y; tr '\\0' ' ' </proc/1/attr/current"
    flags = ["--guest-variant", "selinux", "--init", "--read-only", "--tmpfs", "/t", "-v", f"{tmp_path}:/data"]
    flags += ["--security-opt", "label=level:s0:c7"]
    told = succeed("run", "--rm", *flags, busybox_image(), "sh", "-c", script)
    assert told.split("\n") == ["from the host", "y", "system_u:system_r:container_t:s0:c7 "]
    assert (tmp_path / "out").read_text() == "out\n"


def test_containers_without_a_level_of_their_own_get_different_ones(pod: Pod) -> None:
    first, second = (pod.run("cat", "/proc/self/attr/current").stdout for _ in range(2))
    assert first.startswith("system_u:system_r:container_t:s0:c")
    assert first != second


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"label": ["type:no_such_t"]}, r"process\.selinuxLabel: .*no_such_t.* is no context of the loaded policy"),
        ({"label": ["level:s0:c1024"]}, r"process\.selinuxLabel: .*c1024.* is no context of the loaded policy"),
        ({"label": ["filetype:no_such_t"]}, r"linux\.mountLabel: .*no_such_t.* is no context of the loaded policy"),
        ({"apparmor": "innkeeper-default"}, r"process\.apparmorProfile: AppArmor is not active"),
    ],
)
def test_what_the_policy_lacks_or_another_module_has_is_refused(pod: Pod, options: dict[str, Any], refusal: str) -> None:
    with pytest.raises(RpcError, match=refusal):
        pod.run("true", **options)


def test_apparmor_unconfined_asks_for_nothing(pod: Pod) -> None:
    assert pod.run("true", apparmor="unconfined").status == 0


def test_features_tell_what_is_active(pod: Pod) -> None:
    linux = json.loads(pod.agent.features())["linux"]
    assert (linux["apparmor"], linux["selinux"]) == ({"enabled": False}, {"enabled": True})
