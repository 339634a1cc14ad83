"""AppArmor in the guest: the profile of ours, what it denies when every other wall is down, and which names are refused."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from innkeeper.client import RpcError
from tests.images import debian_image
from tests.vm.pod import PROBE_BEGINS, Document, Pod, Result, booted, in_user_namespace

pytestmark = pytest.mark.vm

PROBE = (
    PROBE_BEGINS
    + r"""
def moved_tree():
    tree = libc.syscall(428, -100, b"/tmp", 1)  # open_tree(OPEN_TREE_CLONE)
    return called(libc.syscall, 429, tree, b"", -100, b"/mnt", 4)  # move_mount(MOVE_MOUNT_F_EMPTY_PATH)

def change_profile():
    with open("/proc/self/attr/apparmor/exec", "wb", buffering=0) as file:
        file.write(b"exec unconfined")

def traced():
    pid = os.fork()
    if pid == 0:
        signal.pause()
    answer = called(libc.ptrace, 16, pid, None, None)
    os.kill(pid, signal.SIGKILL)
    return answer

print(json.dumps({
    "label": open("/proc/self/attr/apparmor/current").read().strip(),
    "mount": called(libc.mount, b"none", b"/mnt", b"tmpfs", 0, None),
    "move mount": moved_tree(),
    "umount": called(libc.umount2, b"/dev/mqueue", 0),
    "user namespace": called(libc.unshare, 0x10000000),
    "kernel sysctl": opened("/proc/sys/kernel/core_pattern", os.O_WRONLY),
    "vm sysctl": opened("/proc/sys/vm/drop_caches", os.O_WRONLY),
    "user sysctl": opened("/proc/sys/user/max_user_namespaces", os.O_WRONLY),
    "net sysctl": opened("/proc/sys/net/ipv4/ip_default_ttl", os.O_WRONLY),
    "ipc sysctl": opened("/proc/sys/kernel/shmmax", os.O_WRONLY),
    "mqueue sysctl": opened("/proc/sys/fs/mqueue/msg_max", os.O_WRONLY),
    "proc": opened("/proc/mtrr", os.O_WRONLY),
    "own proc": opened("/proc/self/oom_score_adj", os.O_WRONLY),
    "irq": opened("/proc/irq/default_smp_affinity", os.O_WRONLY),
    "sysfs": opened("/sys/kernel/rcu_expedited", os.O_WRONLY),
    "cgroup": opened("/sys/fs/cgroup/cgroup.procs", os.O_WRONLY),
    "vsock": tried(lambda: socket.socket(40, socket.SOCK_STREAM).close()),
    "alg": tried(lambda: socket.socket(38, socket.SOCK_SEQPACKET).close()),
    "inet": tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()),
    "netlink": tried(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()),
    "own child": traced(),
    "file": opened("/root/file", os.O_WRONLY | os.O_CREAT),
    "change profile": tried(change_profile),
}))
"""
)

WALLS_DOWN: dict[str, Any] = {"seccomp": "unconfined", "unmask": True, "cap_add": ["ALL"], "no_new_privileges": False}


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    with booted(debian_image(), tmp_path_factory.mktemp("apparmor")) as running:
        yield running


def writable(document: Document) -> None:
    """Take the last walls that are no option of `run`: /sys and the control groups of the container are mounted writable."""
    for mount in document["mounts"]:
        mount["options"] = ["rw" if option == "ro" else option for option in mount["options"]]


def probe(pod: Pod, **options: Any) -> dict[str, str]:
    result = pod.run("python3", "-c", PROBE, change=writable, **WALLS_DOWN, **options)
    assert result.status == 0, result.stderr
    told: dict[str, str] = json.loads(result.stdout)
    return told


DENIED = {"mount", "move mount", "umount", "user namespace", "kernel sysctl", "vm sysctl", "user sysctl", "proc", "irq", "sysfs"}
DENIED |= {"vsock", "alg", "change profile"}


def test_the_default_profile_holds_when_every_other_wall_is_down(pod: Pod) -> None:
    held, free = probe(pod), probe(pod, apparmor="unconfined")
    assert (held.pop("label"), free.pop("label")) == ("innkeeper-default (enforce)", "unconfined")
    assert {name for name, answer in held.items() if answer == "EACCES"} == DENIED
    assert {name: answer for name, answer in held.items() if name not in DENIED} == dict.fromkeys(held.keys() - DENIED, "done")
    assert not {"EACCES", "EPERM"} & set(free.values()), "with another wall in the way, what is above shows nothing"


def test_an_executed_process_has_its_containers_profile_or_its_own(pod: Pod) -> None:
    pod.create("main", ["sleep", "1000"])
    label = ("cat", "/proc/self/attr/apparmor/current")
    assert pod.exec("main", *label).stdout == "innkeeper-default (enforce)\n"
    assert pod.exec("main", *label, apparmorProfile="unconfined").stdout == "unconfined\n"
    with pytest.raises(RpcError, match=r"process\.apparmorProfile: profile 'other' is not loaded"):
        pod.exec("main", *label, apparmorProfile="other")
    pod.agent.remove_container("main")


MOUNT = "import ctypes, sys; sys.exit(-ctypes.CDLL(None).mount(b'none', sys.argv[1].encode(), b'tmpfs', 0, None))"
COVER = """
python3 -c "$0" /proc && mkdir -p /proc/self/attr/apparmor && touch /proc/self/attr/exec /proc/self/attr/apparmor/exec && touch /ready
exec sleep 100000
"""
WAIT = "for i in $(seq 600); do test -e /ready && exit 0; sleep 0.1; done; exit 1"


def test_what_covers_proc_keeps_no_label_away(pod: Pod) -> None:
    """The kind of CVE-2025-52881: the label of an executed process would go into a file of the container's."""
    pod.create("covered", ["sh", "-c", COVER, MOUNT], apparmor="unconfined", **WALLS_DOWN)
    assert pod.exec("covered", "sh", "-c", WAIT).status == 0
    capabilities = {kind: ["CAP_SYS_ADMIN"] for kind in ("bounding", "effective", "permitted")}
    mount = ("python3", "-c", MOUNT, "/mnt")
    assert pod.exec("covered", *mount, capabilities=capabilities, apparmorProfile="innkeeper-default").status == 1
    assert pod.exec("covered", *mount, capabilities=capabilities).status == 0
    assert pod.exec("covered", "cat", "/proc/self/attr/exec", "/proc/self/attr/apparmor/exec") == Result(0, "", "")
    pod.agent.remove_container("covered")


def test_a_user_namespace_changes_nothing(pod: Pod) -> None:
    result = pod.run("sh", "-c", "cat /proc/self/attr/current; wc -l </proc/self/uid_map", change=in_user_namespace)
    assert (result.stdout.split(), result.stderr) == (["innkeeper-default", "(enforce)", "1"], "")


@pytest.mark.parametrize("name", ["runtime/default", "docker-default", "cri-containerd.apparmor.d", "containers-default-0.62.2"])
def test_names_of_the_runtimes_default_mean_ours(pod: Pod, name: str) -> None:
    assert pod.run("cat", "/proc/self/attr/apparmor/current", apparmor=name).stdout == "innkeeper-default (enforce)\n"


def test_what_is_not_loaded_or_not_active_is_refused(pod: Pod) -> None:
    with pytest.raises(RpcError, match=r"process\.apparmorProfile: profile 'localhost/mine' is not loaded"):
        pod.run("true", apparmor="localhost/mine")
    with pytest.raises(RpcError, match=r"process\.selinuxLabel: SELinux is not active"):
        pod.run("true", label=["type:container_t"])

    def label_mounts(document: Document) -> None:
        document["linux"]["mountLabel"] = "system_u:object_r:container_file_t:s0"

    with pytest.raises(RpcError, match=r"linux\.mountLabel: SELinux is not active"):
        pod.run("true", change=label_mounts)


def test_features_tell_what_is_active(pod: Pod) -> None:
    features = json.loads(pod.agent.features())
    assert (features["linux"]["apparmor"], features["linux"]["selinux"]) == ({"enabled": True}, {"enabled": False})
    assert int(features["annotations"]["innkeeper.landlock.abi"]) >= 1
