"""A VM's control group in this host's hierarchies, of both versions: made, entered, limited, removed with what is in it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.shim import cgroups, mounts
from innkeeper.shim.cgroups import Cgroup, Hierarchy
from tests.needs import needs
from tests.paths import ROOT

pytestmark = [pytest.mark.root, needs("root")]
TOP = "innkeeper-test"


def trees(version: int) -> list[Hierarchy]:
    """This host's hierarchies of one version, whatever it uses."""
    kind = "cgroup" if version == 1 else "cgroup2"
    found = cgroups.hierarchies(mount for mount in mounts.all_mounts() if mount.kind == kind)
    if not found:
        pytest.skip(f"this host has no cgroup version {version}")
    return found


@contextmanager
def made(name: str, found: list[Hierarchy]) -> Iterator[Cgroup]:
    """Context manager: a group, and these hierarchies afterwards as they were before."""
    switched = {tree.mount / "cgroup.subtree_control": tree for tree in found if tree.version == 2}
    before = {file: set(file.read_text().split()) for file in switched}
    group = Cgroup(f"{TOP}/{name}", found)
    try:
        group.make()
        yield group
    finally:
        cgroups.remove_all([*(tree.mount / TOP / name for tree in found), *(tree.mount / TOP for tree in found)])
        for file, names in before.items():
            for added in set(file.read_text().split()) - names:
                file.write_text(f"-{added}")


@pytest.fixture(params=[1, 2])
def group(request: pytest.FixtureRequest) -> Iterator[Cgroup]:
    with made("vm", trees(request.param)) as group:
        yield group


def in_child(group: Cgroup, script: str) -> "subprocess.CompletedProcess[str]":
    """Run `script` in a new process, where `group` is this group."""
    head = "import os, subprocess, sys\nfrom pathlib import Path, PosixPath\nfrom innkeeper.shim.cgroups import Cgroup, Hierarchy\n"
    made = f"group = Cgroup({TOP + '/vm'!r}, {group._trees!r})\n"
    argv = [sys.executable, "-P", "-c", head + made + script]
    return subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=60)


def test_enter_and_remove(group: Cgroup) -> None:
    """Its children are in the group, and at the end both they and itself are where it was before."""
    script = """
before = Path("/proc/self/cgroup").read_text()
group.enter()
child = subprocess.Popen(["sleep", "100"])
for folder in group.folders:
    assert set((folder / "cgroup.procs").read_text().split()) == {str(os.getpid()), str(child.pid)}, folder
folders = group.folders
group.remove()
assert Path("/proc/self/cgroup").read_text() == before == Path(f"/proc/{child.pid}/cgroup").read_text(), before
assert not any(folder.exists() for folder in folders)
child.kill()
group.remove()
"""
    done = in_child(group, script)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_was_left_is_killed(group: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "NATURAL_SECONDS", 0.1)
    with subprocess.Popen(["sleep", "100"]) as left:
        for folder in group.folders:
            (folder / "cgroup.procs").write_text(str(left.pid))
        cgroups.remove_all(group.folders)
        assert left.wait(10) == -9
    assert not any(folder.exists() for folder in group.folders)


def test_limits() -> None:
    found = trees(1)
    folders = {name: tree.mount / TOP / "limits" for tree in found for name in tree.controllers}
    with made("limits", found) as group:
        group.limit_memory(64 << 20)
        group.set_shares(512)
        group.bind("0", "0")
        assert (folders["memory"] / "memory.limit_in_bytes").read_text() == f"{64 << 20}\n"
        assert (folders["cpu"] / "cpu.shares").read_text() == "512\n"
        assert (folders["cpuset"] / "cpuset.cpus").read_text() == "0\n"
        group.bind("", "")
        assert (folders["cpuset"] / "cpuset.cpus").read_text() == (folders["cpuset"].parent / "cpuset.cpus").read_text()
        with pytest.raises(InnkeeperError, match=r"linux\.resources\.cpu\.cpus: 9999"):
            group.bind("9999", "0")


def test_controllers_of_version_2_reach_the_group() -> None:
    (tree,) = trees(2)
    with made("controllers", [tree]) as group:
        assert (group.folders[0] / "cgroup.controllers").read_text() == (tree.mount / "cgroup.controllers").read_text()
