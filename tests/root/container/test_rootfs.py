"""Mounts and paths: what the spec asks for is there, and a hostile image leads nowhere else."""

import os
from pathlib import Path
from typing import Any

import pytest

from agent import loop
from agent.container.container import Container
from agent.container.init import child
from agent.errors import Refused, StepFailed
from tests.root.container_helpers import Box, execute, whole_life

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]


@pytest.fixture
def own(own_root: Path, box: Box) -> Box:
    """A box whose root the test may spoil."""
    return Box(own_root, box.host, "box")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A directory of the host that no container may touch."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("sings")
    return outside


def options(doc: dict[str, Any], destination: str, box: Box) -> list[str]:
    """The per-mount options that mountinfo shows inside."""
    doc["process"]["args"] = ["cat", "/proc/self/mountinfo"]
    for line in box.run(doc).stdout.splitlines():
        fields = line.split()
        if fields[4] == destination:
            return sorted(fields[5].split(","))
    raise AssertionError(f"nothing is mounted on {destination}")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ro"], ["relatime", "ro"]),
        (["ro", "rw", "noatime"], ["noatime", "rw"]),
        (["nosuid", "nodev", "noexec", "suid"], ["nodev", "noexec", "relatime", "rw"]),
        (["strictatime", "nodiratime"], ["nodiratime", "rw"]),
        (["noatime", "relatime"], ["relatime", "rw"]),
        (["nosymfollow"], ["nosymfollow", "relatime", "rw"]),
    ],
)
@pytest.mark.parametrize("bind", [False, True])
def test_mount_attributes(box: Box, canary: Path, words: list[str], expected: list[str], bind: bool) -> None:
    doc = box.document()
    if bind:
        words = ["rbind", "noatime", "relatime", *words]
        doc["mounts"].append({"destination": "/tmp", "type": "bind", "source": str(canary), "options": words})
    else:
        doc["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "t", "options": words})
    assert options(doc, "/tmp", box) == expected


def test_bind_of_a_directory_and_of_a_file(own: Box, canary: Path) -> None:
    doc = own.document("cat", "/data/canary", "/deep/down/file")
    doc["mounts"] += [
        {"destination": "/data", "type": "bind", "source": str(canary), "options": ["rbind", "ro"]},
        {"destination": "/deep/down/file", "type": "bind", "source": str(canary / "canary"), "options": ["bind"]},
    ]
    assert own.run(doc).stdout == "singssings"


def test_recursive_read_only_reaches_mounts_below(box: Box, canary: Path) -> None:
    """Only what was there before: the source is a tree with a mount of its own."""
    doc = box.document("sh", "-c", "touch /d/shm/x")
    doc["mounts"].append({"destination": "/d", "type": "bind", "source": "/dev", "options": ["rbind", "rro"]})
    assert "Read-only file system" in box.run(doc).stderr


def test_nothing_mounted_inside_appears_outside(box: Box, canary: Path) -> None:
    doc = box.document("sh", "-c", "mount -t tmpfs t /d && touch /d/inside && echo mounted")
    doc["mounts"].append({"destination": "/d", "type": "bind", "source": str(canary), "options": ["rbind"]})
    for names in doc["process"]["capabilities"].values():
        names.append("CAP_SYS_ADMIN")
    assert box.run(doc).stdout == "mounted\n"
    assert os.listdir(canary) == ["canary"]


def test_a_missing_bind_source_is_refused(box: Box) -> None:
    doc = box.document("true")
    doc["mounts"].append({"destination": "/d", "type": "bind", "source": "/no/such/place"})
    with pytest.raises(Refused, match=r"mounts\[7\].source: /no/such/place"):
        box.run(doc)


def test_a_filesystem_says_which_option_it_does_not_know(box: Box) -> None:
    doc = box.document("true")
    doc["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "t", "options": ["nonsense=1"]})
    with pytest.raises(StepFailed, match=r"place mounts: .*nonsense"):
        box.run(doc)


def test_destinations_through_links_stay_inside(own: Box, canary: Path) -> None:
    (own.root / "a").symlink_to("../../../../../.." + str(canary))
    (own.root / "b").symlink_to(str(canary))
    doc = own.document("sh", "-c", "touch /a/x /b/y")
    doc["mounts"] += [
        {"destination": "/a/mnt", "type": "tmpfs", "source": "t"},
        {"destination": "/b/file", "type": "bind", "source": "/etc/hostname"},
    ]
    own.run(doc)
    assert os.listdir(canary) == ["canary"]
    assert (own.root / str(canary)[1:] / "mnt").is_dir()


def test_a_loop_of_links_is_an_error(own: Box) -> None:
    (own.root / "l").symlink_to("l")
    doc = own.document("true")
    doc["mounts"].append({"destination": "/l/x", "type": "tmpfs", "source": "t"})
    with pytest.raises(StepFailed, match="symbolic links"):
        own.run(doc)


@pytest.mark.parametrize("place", ["proc", "sys"])
def test_proc_and_sys_are_not_mounted_through_a_link(own: Box, place: str) -> None:
    (own.root / place).rmdir()
    (own.root / "elsewhere").mkdir()
    (own.root / place).symlink_to("elsewhere")
    with pytest.raises(StepFailed, match=f"place mounts: /{place}: {place}.* must be mounted on ordinary directory"):
        own.run(own.document("true"))


def test_a_dev_that_is_a_link_is_refused(own: Box, canary: Path) -> None:
    (own.root / "dev").rmdir()
    (own.root / "dev").symlink_to("../outside")
    doc = own.document("true")
    doc["mounts"] = [mount for mount in doc["mounts"] if not mount["destination"].startswith("/dev")]
    doc["linux"]["devices"] = [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}]
    with pytest.raises(StepFailed, match="make devices"):
        own.run(doc)
    assert os.listdir(canary) == ["canary"]


def test_a_null_device_that_is_none_is_refused(own: Box) -> None:
    doc = own.document("true")
    doc["mounts"] = [mount for mount in doc["mounts"] if not mount["destination"].startswith("/dev")]
    (own.root / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    with pytest.raises(StepFailed, match="make devices"):
        own.run(doc)
    (own.root / "dev/null").unlink()
    (own.root / "dev/null").write_text("")
    with pytest.raises(StepFailed, match="make devices"):
        own.run(doc)


def test_a_console_that_is_a_link_is_refused(own: Box) -> None:
    doc = own.document("true")
    doc["process"]["terminal"] = True
    doc["mounts"] = [mount for mount in doc["mounts"] if mount["destination"] != "/dev"]
    (own.root / "dev/console").symlink_to("/proc/sysrq-trigger")
    with pytest.raises(StepFailed, match="open terminal"):
        own.run(doc)


def test_a_terminal_without_devpts_is_refused(own: Box) -> None:
    doc = own.document("true")
    doc["process"]["terminal"] = True
    doc["mounts"] = [mount for mount in doc["mounts"] if mount["destination"] != "/dev/pts"]
    with pytest.raises(StepFailed, match="open terminal: /dev/pts/ptmx"):
        own.run(doc)


MAGIC = [*[f"/proc/self/fd/{n}" for n in range(3, 24)], "/proc/thread-self/fd/4", "/link"]


@pytest.mark.parametrize("cwd", MAGIC)
def test_a_working_directory_outside_is_refused(own: Box, cwd: str) -> None:
    (own.root / "link").symlink_to("/proc/self/fd/6")
    doc = own.document("cat", "../../../../../../../../etc/passwd")
    doc["process"]["cwd"] = cwd
    with pytest.raises(StepFailed, match="working directory"):
        own.run(doc)


def test_a_root_that_is_a_link_is_refused(own: Box, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(own.root)
    doc = own.document("true")
    doc["root"]["path"] = str(tmp_path / "link")
    with pytest.raises(Refused, match=r"root.path: .* is not a directory"):
        own.run(doc)


def test_a_root_that_is_not_there_is_refused(box: Box, tmp_path: Path) -> None:
    doc = box.document("true")
    doc["root"]["path"] = str(tmp_path / "nothing")
    with pytest.raises(Refused, match=r"root.path: .*/nothing: No such file"):
        box.run(doc)


def test_a_fifo_for_passwd_does_not_hang(own: Box) -> None:
    (own.root / "etc/passwd").unlink()
    os.mkfifo(own.root / "etc/passwd")
    doc = own.document("sh", "-c", "echo $HOME")
    assert own.run(doc).stdout == "/\n"


@pytest.mark.parametrize("cwd", MAGIC)
def test_exec_with_a_working_directory_outside_is_refused(own: Box, cwd: str) -> None:
    (own.root / "link").symlink_to("/proc/self/fd/6")

    async def use(container: Container) -> None:
        with pytest.raises(StepFailed, match="enter working directory"):
            await execute(container, "cat", "../../../../../../../../etc/passwd", cwd=cwd)

    own.during(own.document("sleep", "9"), use)


STEPS = [name for name, _, _ in child.INIT_STEPS]


@pytest.mark.parametrize("step", STEPS)
def test_a_failure_at_any_step_leaves_nothing(box: Box, step: str) -> None:
    """The `box` fixture looks for mounts, processes, descriptors and cgroups."""
    doc = box.document("true")
    doc["linux"]["cgroupsPath"] = "/deep/er/group"

    with pytest.raises(StepFailed, match="failure injected") as caught:
        loop.run(whole_life(box, doc, step))
    assert caught.value.step == step


def test_a_busy_cgroup_is_refused(box: Box) -> None:
    async def use(container: Any) -> None:
        with pytest.raises(Exception, match="has processes already"):
            await box.create(box.document("true"))

    box.during(box.document("sleep", "9"), use)


def test_a_limit_without_its_controller_is_refused_by_name(box: Box) -> None:
    available = (box.host.cgroup_root / "cgroup.controllers").read_text().split()
    if "memory" in available:
        pytest.skip("this host's v2 hierarchy has the memory controller")
    doc = box.document("true")
    doc["linux"]["resources"] = {"memory": {"limit": 1 << 26}}
    with pytest.raises(Refused, match=r"linux.resources.memory.(swap|limit): .* no memory controller"):
        box.run(doc)
