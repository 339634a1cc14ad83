"""VMs of the shim start from a template that somebody has made."""

import time
from pathlib import Path

import pytest

from tests.needs import needs
from tests.shim.node import Node
from tests.shim.test_cri import address, page, running_pod

pytestmark = [
    pytest.mark.root,
    pytest.mark.interop,
    pytest.mark.vm,
    needs("root", "ctr", "virtiofsd", "setpriv", "nsenter", "ip", "busybox", "cni", "iptables-save", "go", "mke2fs", "module:pyroute2"),
]


@pytest.fixture(scope="module")
def template(daemon: Node) -> Path:
    """The template of the second configuration, made by the command."""
    return daemon.make_template()


def options(node: Node) -> tuple[str, ...]:
    return ("--runtime-config-path", str(node.folder / "template.toml"))


def is_clone(pid: int) -> bool:
    """Return whether a QEMU has loaded saved state."""
    return b"-incoming" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def start(node: Node, name: str, *more: str) -> int:
    """Start a container that sleeps. Return the process id of its QEMU."""
    node.ctr(*node.run_words("--detach", *options(node), *more, name), "sleep", "1000")
    return node.pid(name)


def test_two_start_from_it_and_have_an_identity_of_their_own(node: Node, template: Path) -> None:
    assert (template / "template.json").exists()
    assert all(is_clone(start(node, name)) for name in ("one", "two"))
    read = ("cat", "/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/random/uuid")
    said = [node.ctr("task", "exec", "--exec-id", "e", name, *read).split() for name in ("one", "two")]
    assert len({*said[0], *said[1]}) == 4
    before = int(time.time())
    assert before <= int(node.ctr("task", "exec", "--exec-id", "f", "one", "date", "+%s")) <= time.time()


def test_its_streams_and_status(node: Node, template: Path) -> None:
    done = node.run("x", "sh", "-c", "cat; echo err >&2; exit 7", options=("--rm", *options(node)), input="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "in\n", "err\n")


def test_a_pod_has_its_network_and_its_volumes(node: Node, template: Path) -> None:
    with running_pod(node, "cloned", "template") as pod:
        assert is_clone(node.pid_of_pod(pod.id))
        assert page(pod) == "from the pod\n"
        assert f"inet {address(pod)}/24" in pod.exec("ip", "address", "show", "eth0")
        assert pod.exec("cat", "/config/key") == "one\n"


def test_one_that_does_not_fit_is_left_alone(node: Node, template: Path) -> None:
    """More memory than the template has: the VM boots."""
    assert not is_clone(start(node, "large", "--memory-limit", str(600 << 20)))
    assert (template / "template.json").exists()


def test_one_that_is_damaged_is_removed_and_the_vm_boots(node: Node, template: Path) -> None:
    (template / "state").write_bytes(b"nothing")
    assert not is_clone(start(node, "damaged"))
    assert not template.exists()
