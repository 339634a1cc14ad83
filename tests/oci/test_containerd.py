"""containerd's shim for runc with `innkeeper-oci` as its binary, driven by `ctr`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.eventually import eventually
from tests.needs import needs
from tests.oci import images
from tests.oci.containerd import Ctr, containerd
from tests.oci.oci_helpers import SECONDS
from tests.root.container_helpers import cgroup2

pytestmark = [
    pytest.mark.root,
    pytest.mark.interop,
    needs("root", "cgroup2", "ctr", "buildah", "mmdebstrap", "module:pexpect", "busybox"),
]

IMAGE = "busybox:busybox"
STATE = Path("/run/containerd/runc/innkeeper-test")


@pytest.fixture(scope="module")
def daemon(oci_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ctr]:
    folder = tmp_path_factory.mktemp("containerd")
    with containerd(folder, oci_program) as ctr:
        ctr("image", "import", "--base-name", "busybox", images.busybox())
        yield ctr
    mounts = Path("/proc/self/mounts").read_text()
    assert str(folder) not in mounts


@pytest.fixture
def ctr(daemon: Ctr) -> Iterator[Ctr]:
    yield daemon
    daemon.end()
    assert (list(STATE.iterdir()) if STATE.is_dir() else []) == []
    group = cgroup2() / "innkeeper-test"
    assert not group.is_dir() or not [path for path in group.iterdir() if path.is_dir()]


def test_run(ctr: Ctr) -> None:
    done = ctr.try_(*ctr.run("--rm", IMAGE, "a", "sh", "-c", "echo out; echo err >&2; exit 7"))
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert "err\n" in done.stderr
    for number in range(5):
        assert ctr.try_(*ctr.run("--rm", IMAGE, f"fast{number}", "sh", "-c", "exit 3")).returncode == 3
    assert ctr(*ctr.run("--rm", "--read-only", IMAGE, "b", "sh", "-c", "touch /x || echo kept")) == "kept"
    assert "executable file not found" in ctr.try_(*ctr.run("--rm", IMAGE, "c", "none")).stderr


def test_exec_pause_kill(ctr: Ctr) -> None:
    ctr(*ctr.run("--detach", IMAGE, "a", "sleep", "1000"))
    assert ctr.tasks() == {"a": "RUNNING"}
    for number in range(5):
        # A process that has ended before the shim knows its number: its end is the shim's to see.
        assert ctr.try_("task", "exec", "--exec-id", f"e{number}", "a", "sh", "-c", "exit 4").returncode == 4
    assert ctr("task", "exec", "--exec-id", "out", "--cwd", "/tmp", "--user", "1000", "a", "sh", "-c", "pwd; id -u").split() == [
        "/tmp",
        "1000",
    ]
    assert len(ctr("task", "ps", "a").splitlines()) == 2
    ctr("task", "pause", "a")
    assert ctr.tasks() == {"a": "PAUSED"}
    ctr("task", "resume", "a")
    assert ctr.tasks() == {"a": "RUNNING"}
    assert "checkpoint: this runtime cannot save" in ctr.try_("task", "checkpoint", "a").stderr
    ctr("task", "kill", "--signal", "KILL", "a")
    eventually(lambda: ctr.tasks() == {"a": "STOPPED"})
    assert "process already finished" in ctr.try_("task", "kill", "a").stderr
    ctr("task", "rm", "a")


def test_terminal(ctr: Ctr) -> None:
    argv = ctr.argv(*ctr.run("--rm", "--tty", IMAGE, "a", "sh", "-c", "tty; read line; echo got $line; exit 5"))
    child = pexpect.spawn(argv[0], argv[1:], timeout=SECONDS, encoding="utf-8")
    child.expect(r"/dev/pts/0\r+\n")  # ctr makes its terminal raw a little later
    child.sendline("word")
    child.expect(r"got word\r+\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 5
    ctr(*ctr.run("--detach", IMAGE, "b", "sleep", "1000"))
    argv = ctr.argv("task", "exec", "--tty", "--exec-id", "e", "b", "sh", "-c", "tty; exit 6")
    child = pexpect.spawn(argv[0], argv[1:], timeout=SECONDS, encoding="utf-8")
    child.expect(r"/dev/pts/0\r+\n")  # ctr makes its terminal raw a little later
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 6


def test_limits(ctr: Ctr) -> None:
    """What the hierarchy has is applied, the rest refused by name."""
    controllers = (cgroup2() / "cgroup.controllers").read_text().split()
    done = ctr.try_(*ctr.run("--rm", "--memory-limit", "67108864", IMAGE, "a", "true"))
    if "memory" in controllers:
        assert done.returncode == 0, done.stderr
    else:
        assert "linux.resources.memory.limit: the cgroup v2 hierarchy has no memory controller here" in done.stderr


def test_the_runtime_is_ours(ctr: Ctr) -> None:
    ctr(*ctr.run("--detach", IMAGE, "a", "sleep", "1000"))
    record = json.loads((STATE / "a/state.json").read_text())
    assert record["pid"] == int(ctr("task", "ls").splitlines()[1].split()[1])
