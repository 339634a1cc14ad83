"""podman with `innkeeper-oci` as its runtime: real images, what an engine asks of one, and what is refused by name."""

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from innkeeper import programs
from tests.eventually import eventually
from tests.needs import needs
from tests.oci import images
from tests.oci.oci_helpers import SECONDS
from tests.oci.podman import Podman
from tests.root.container_helpers import cgroup2

pytestmark = [
    pytest.mark.root,
    pytest.mark.interop,
    needs("root", "cgroup2", "podman", "buildah", "mmdebstrap", "module:pexpect", "busybox"),
]


@pytest.fixture(scope="module")
def storage(oci_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """podman with the images; afterwards nothing runs and nothing is mounted in its folder."""
    folder = tmp_path_factory.mktemp("podman") / "p"
    parents = _parents()
    podman = Podman(folder, oci_program)
    for archive in (images.busybox(), images.nginx()):
        podman("load", "-i", archive)
    podman("network", "create", "--subnet", "10.199.64.0/24", NETWORK)
    yield podman
    podman.end()
    podman("network", "rm", "--force", NETWORK)
    podman("rmi", "--all", "--force")
    for parent in _parents() - parents:
        _remove_parent(parent)
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in sorted([place for place in mounts if place.startswith(f"{folder}/")], reverse=True):
        subprocess.run(["umount", place], check=True)


def _parents() -> set[Path]:
    """The groups that podman makes its containers' in, one in each hierarchy, and those that are in them."""
    patterns = (f"{hierarchy}libpod_parent{below}" for hierarchy in ("", "*/") for below in ("", "/*"))
    return {path for pattern in patterns for path in Path("/sys/fs/cgroup").glob(pattern) if path.is_dir()}


def _remove_parent(parent: Path) -> None:
    """podman leaves it; where a hierarchy is not mounted, as an ordinary folder."""
    for folder, _, _ in os.walk(parent, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)


def _known() -> set[str]:
    """Containers in the runtime's default root."""
    root = Path("/run/innkeeper-oci")
    return {path.name for path in root.iterdir()} if root.is_dir() else set()


@pytest.fixture
def podman(storage: Podman) -> Iterator[Podman]:
    """No container is there before, and none afterwards; nor does the runtime know one."""
    before = _known()
    yield storage
    storage.end()
    assert storage("ps", "--all", "--quiet") == ""
    groups = [path for path in (cgroup2() / "libpod_parent").glob("libpod-*") if "conmon" not in path.name]
    assert groups == []
    assert _known() <= before


BUSYBOX, NGINX, NETWORK = "localhost/busybox", "localhost/nginx", "innkeeper-test"


def test_run(podman: Podman) -> None:
    done = podman.try_("run", "--rm", BUSYBOX, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert podman("run", "--rm", "-i", BUSYBOX, "cat", stdin=None, input="given") == "given"
    assert podman(
        "run", "--rm", "-w", "/tmp", "-e", "A=b", "-u", "1000:1000", "--hostname", "h", BUSYBOX, "sh", "-c", "pwd; echo $A; id -u; hostname"
    ).split() == [
        "/tmp",
        "b",
        "1000",
        "h",
    ]


def test_a_program_that_is_not_there(podman: Podman) -> None:
    """podman tells these apart by what the runtime says."""
    assert "not found" in podman.refuses("run", "--rm", BUSYBOX, "none", status=127)
    assert "ermission denied" in podman.refuses("run", "--rm", BUSYBOX, "/etc/passwd", status=126)
    podman("run", "-d", "--name", "a", BUSYBOX, "sleep", "1000")
    assert "not found" in podman.refuses("exec", "a", "none", status=127)


def test_exec(podman: Podman) -> None:
    podman("run", "-d", "--name", "a", BUSYBOX, "sleep", "1000")
    done = podman.try_("exec", "a", "sh", "-c", "echo out; exit 3")
    assert (done.returncode, done.stdout) == (3, "out\n")
    for _ in range(5):
        assert podman.try_("exec", "a", "sh", "-c", "exit 4").returncode == 4
    assert podman(
        "exec", "-i", "-u", "1000", "-w", "/tmp", "-e", "A=b", "a", "sh", "-c", "cat; pwd; echo $A; id -u", stdin=None, input="x\n"
    ).split() == [
        "x",
        "/tmp",
        "b",
        "1000",
    ]
    podman("exec", "-d", "a", "sleep", "2000")
    eventually(lambda: "sleep 2000" in podman("top", "a", "args"))


def test_terminal(podman: Podman) -> None:
    argv = podman.argv("run", "--rm", "-it", BUSYBOX, "sh", "-c", "tty; read line; echo got $line; stty size; exit 5")
    child = pexpect.spawn(argv[0], argv[1:], env=podman.environment, dimensions=(31, 99), timeout=SECONDS, encoding="utf-8")
    child.expect_exact("/dev/pts/0\r\n")
    child.sendline("word")
    child.expect_exact("got word\r\n31 99\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 5
    podman("run", "-d", "--name", "a", BUSYBOX, "sleep", "1000")
    argv = podman.argv("exec", "-it", "a", "sh", "-c", "tty; exit 6")
    child = pexpect.spawn(argv[0], argv[1:], env=podman.environment, timeout=SECONDS, encoding="utf-8")
    child.expect_exact("/dev/pts/0\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 6


def test_ports_and_health(podman: Podman, tmp_path: Path) -> None:
    """A service of Debian's, reached through a published port; its health is asked by `exec`."""
    tmp_path.chmod(0o755)
    (tmp_path / "index.html").write_text("served\n")
    podman(
        "run", "-d", "--name", "web", "--network", NETWORK, "-p", "127.0.0.1:18765:80", "-v", f"{tmp_path}:/var/www/html:ro",
        "--health-cmd", "test -s /var/www/html/index.html", "--health-interval", "disable", NGINX,
    )  # fmt: skip

    def serves() -> bool:
        try:
            with urllib.request.urlopen("http://127.0.0.1:18765/index.html", timeout=5) as answer:
                return bool(answer.read() == b"served\n")
        except OSError:
            return False

    eventually(serves)
    podman("healthcheck", "run", "web")
    os.unlink(tmp_path / "index.html")
    assert podman.try_("healthcheck", "run", "web").returncode == 1
    assert "nginx" in podman("top", "web", "args")
    podman("stop", "-t", "20", "web")
    assert podman("inspect", "--format", "{{.State.ExitCode}}", "web") == "0"


def test_volumes_and_read_only(podman: Podman, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    podman("run", "--rm", "-v", f"{tmp_path}/d:/data", BUSYBOX, "sh", "-c", "echo kept >/data/f")
    assert (tmp_path / "d/f").read_text() == "kept\n"
    assert "Read-only" in podman.refuses("run", "--rm", "-v", f"{tmp_path}/d:/data:ro", BUSYBOX, "touch", "/data/g")
    podman("run", "--rm", "-v", "named:/data", BUSYBOX, "sh", "-c", "echo kept >/data/f")
    assert podman("run", "--rm", "-v", "named:/data", BUSYBOX, "cat", "/data/f") == "kept"
    podman("volume", "rm", "named")
    script = "touch /tmp/x && echo tmp; touch /x || echo root; echo y >/dev/shm/y && echo shm"
    assert podman("run", "--rm", "--read-only", BUSYBOX, "sh", "-c", script).split("\n") == ["tmp", "root", "shm"]
    assert (
        podman("run", "--rm", "--tmpfs", "/t:size=1m,mode=700", BUSYBOX, "sh", "-c", "stat -c %a /t; mount | grep -c 'on /t '") == "700\n1"
    )


def test_fewer_rights(podman: Podman) -> None:
    show = ["grep", "-E", "^(CapEff|CapBnd|NoNewPrivs|Seccomp):", "/proc/self/status"]

    def status(*options: str) -> dict[str, int]:
        lines = podman("run", "--rm", *options, BUSYBOX, *show).splitlines()
        return {line.split(":")[0]: int(line.split()[1], 16) for line in lines}

    assert status("--cap-drop", "all") == {"CapEff": 0, "CapBnd": 0, "NoNewPrivs": 0, "Seccomp": 2}
    assert status("--cap-drop", "all", "--cap-add", "KILL")["CapEff"] == 1 << 5
    assert status("--security-opt", "no-new-privileges")["NoNewPrivs"] == 1
    assert status("--security-opt", "seccomp=unconfined")["Seccomp"] == 0
    assert "Operation not permitted" in podman.refuses("run", "--rm", "--cap-drop", "all", BUSYBOX, "chown", "1", "/tmp")


def test_user_namespaces(podman: Podman, tmp_path: Path) -> None:
    maps = ["--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"]
    assert podman("run", "--rm", *maps, BUSYBOX, "sh", "-c", "cat /proc/self/uid_map /proc/self/gid_map; id -u").split() == [
        *("0", "100000", "65536"),
        *("0", "200000", "65536"),
        "0",
    ]
    (tmp_path / "d").mkdir(mode=0o777)
    (tmp_path / "d").chmod(0o777)
    for folder in tmp_path.parents:
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    podman("run", "--rm", *maps, "-v", f"{tmp_path}/d:/data", BUSYBOX, "touch", "/data/f")
    assert (tmp_path / "d/f").stat().st_uid == 100000


def test_pause(podman: Podman) -> None:
    podman("run", "-d", "--name", "a", BUSYBOX, "sleep", "1000")
    podman("pause", "a")
    assert podman("inspect", "--format", "{{.State.Status}}", "a") == "paused"
    podman.refuses("exec", "a", "true")
    podman("unpause", "a")
    assert podman("inspect", "--format", "{{.State.Status}}", "a") == "running"
    assert podman("exec", "a", "echo", "thawed") == "thawed"


def test_pods_share_namespaces(podman: Podman) -> None:
    podman(
        "pod",
        "create",
        "--name",
        "p",
        "--infra-image",
        BUSYBOX,
        "--infra-command",
        "sleep 1000",
        "--share",
        "net,ipc,uts",
        "--network",
        NETWORK,
    )
    try:
        podman("run", "-d", "--pod", "p", "--name", "server", BUSYBOX, "sh", "-c", "echo hello | nc -l -p 7777; sleep 1000")
        eventually(lambda: podman.try_("run", "--rm", "--pod", "p", BUSYBOX, "nc", "127.0.0.1", "7777").stdout == "hello\n")
    finally:
        podman.try_("pod", "rm", "--force", "--time", "0", "p")  # where cgroup v1 is, it may fail at its own group and yet be gone
    assert podman("pod", "ps", "--quiet") == ""


def test_hooks(podman: Podman, tmp_path: Path) -> None:
    (tmp_path / "hooks").mkdir()
    script = tmp_path / "hook"
    script.write_text(f"#!/bin/sh\ncat >{tmp_path}/$1.json\n")
    script.chmod(0o755)
    for stage in ("createRuntime", "poststop"):
        hook = {"version": "1.0.0", "hook": {"path": str(script), "args": ["hook", stage]}, "when": {"always": True}, "stages": [stage]}
        (tmp_path / f"hooks/{stage}.json").write_text(json.dumps(hook))
    podman.try_("--hooks-dir", tmp_path / "hooks", "run", "--rm", "--name", "a", BUSYBOX, "true")
    states = {stage: json.loads((tmp_path / f"{stage}.json").read_text()) for stage in ("createRuntime", "poststop")}
    assert states["createRuntime"]["status"] == "created"
    assert states["createRuntime"]["pid"] > 0
    assert states["poststop"]["status"] == "stopped"
    assert states["poststop"]["id"] == states["createRuntime"]["id"]


def test_refused_by_name(podman: Podman) -> None:
    controllers = (cgroup2() / "cgroup.controllers").read_text().split()
    limits = {"memory": ("--memory", "64m", "linux.resources.memory"), "pids": ("--pids-limit", "100", "linux.resources.pids.limit")}
    for name, (option, value, field) in limits.items():
        if name not in controllers:
            assert field in podman.refuses("run", "--rm", option, value, BUSYBOX, "true", status=126)
        else:
            podman("run", "--rm", option, value, BUSYBOX, "true")
    assert "apparmor" in podman.refuses("run", "--rm", "--security-opt", "apparmor=none-such", BUSYBOX, "true").lower()
    podman("run", "-d", "--name", "a", BUSYBOX, "sleep", "1000")
    assert "checkpoint" in podman.refuses("container", "checkpoint", "a")


def test_the_runtime_is_ours(podman: Podman, oci_program: Path) -> None:
    info = json.loads(podman("info", "--format", "json"))
    assert info["host"]["ociRuntime"]["path"] == str(oci_program)
    assert "innkeeper-oci version" in info["host"]["ociRuntime"]["version"]
    podman("run", "-d", "--name", "a", BUSYBOX, "sleep", "1000")
    id = podman("inspect", "--format", "{{.Id}}", "a")
    state = json.loads(subprocess.run([oci_program, "state", id], capture_output=True, text=True, check=True).stdout)
    assert (state["id"], state["status"]) == (id, "running")
    assert programs.find("podman") is not None
