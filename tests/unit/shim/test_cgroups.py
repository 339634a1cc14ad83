"""Where a VM's control group is: the mounts of both versions, and the paths of both drivers."""

from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.shim import cgroups, mounts
from innkeeper.shim.cgroups import Hierarchy

HYBRID = b"""\
30 25 0:26 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 30 0:29 / /other/cpu rw - cgroup cgroup rw,cpu,cpuacct
"""
UNIFIED = b"31 30 0:27 / /sys/fs/c\\040group rw shared:10 - cgroup2  rw,nsdelegate,memory_recursiveprot\n"


def test_hierarchies() -> None:
    assert cgroups.hierarchies(mounts.parse(HYBRID)) == [
        Hierarchy(Path("/sys/fs/cgroup/systemd"), 1, frozenset({"name=systemd"})),
        Hierarchy(Path("/sys/fs/cgroup/cpu,cpuacct"), 1, frozenset({"cpu", "cpuacct"})),
    ]
    assert cgroups.hierarchies(mounts.parse(UNIFIED)) == [Hierarchy(Path("/sys/fs/c group"), 2)]
    assert cgroups.hierarchies([]) == []


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("/default/one", "default/one"),
        ("/kubepods/burstable/pod1/2/", "kubepods/burstable/pod1/2"),
        ("", ""),
        (
            "kubepods-burstable-pod1_2.slice:cri-containerd:3",
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-3.scope",
        ),
        ("system.slice:nerdctl:3", "system.slice/nerdctl-3.scope"),
        (":docker:3", "system.slice/docker-3.scope"),
        ("-.slice::3", "3.scope"),
        ("user.slice:x:own.slice", "user.slice/own.slice"),
        ("/b.slice:x:y", "b.slice:x:y"),
    ],
)
def test_paths(given: str, path: str) -> None:
    assert cgroups.resolve(given) == path


@pytest.mark.parametrize("given", ["/a/../b", "../b", "a.slice:x:../y", "a:x:y", "a--b.slice:x:y"])
def test_paths_that_are_refused(given: str) -> None:
    with pytest.raises(InnkeeperError, match=r"linux\.cgroupsPath"):
        cgroups.resolve(given)


def test_without_a_path_there_is_no_group() -> None:
    group = cgroups.Cgroup("")
    group.make()
    group.enter()
    group.bind("0", "0")
    assert group.folders == []
    group.remove()
