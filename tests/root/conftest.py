"""Fixtures of tests that make real containers, and the assertion that nothing of them stays."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.container.cgroup import device_program
from agent.container.host_context import HostContext
from tests.descriptors import open_descriptors
from tests.mounts import mounts
from tests.root.container_helpers import FIRST, Box, busybox_root, cgroup2, open_parents


@pytest.fixture(scope="session")
def container_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A busybox root that tests leave as it is."""
    return busybox_root(tmp_path_factory.mktemp("root"))


@pytest.fixture
def own_root(tmp_path: Path) -> Path:
    """A busybox root of the test's own."""
    return busybox_root(tmp_path / "rootfs")


@pytest.fixture
def cgroup_parent() -> Iterator[Path]:
    """A cgroup for this test's containers; whatever stays in it fails the test."""
    parent = cgroup2() / f"innkeeper-test-{os.getpid()}"
    parent.mkdir()
    yield parent
    left = [path.name for path in parent.iterdir() if path.is_dir()]
    for name in left:
        (parent / name / "cgroup.kill").write_text("1")
    if not left:
        parent.rmdir()
    assert left == []


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def _descriptors() -> set[str]:
    """What this process has open, without the handle that is kept by design; programs that are kept are closed first."""
    while device_program._programs:
        os.close(device_program._programs.popitem()[1])
    return {entry for entry in open_descriptors() if not entry.endswith(" /")}


@pytest.fixture
def box(container_root: Path, cgroup_parent: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A place for one container; afterwards no mount, process, cgroup or descriptor is left."""
    session = tmp_path_factory.getbasetemp()
    before = mounts(session), _children(), _descriptors()
    yield Box(container_root, HostContext(cgroup_parent, tmp_path / "state"), "box")
    assert (mounts(session), _children(), _descriptors()) == before


@pytest.fixture
def mapped(own_root: Path, box: Box) -> Box:
    """A root that belongs to the mapped users."""
    for directory, _, files in os.walk(own_root):
        for name in [directory, *[os.path.join(directory, file) for file in files]]:
            status = os.lstat(name)
            os.chown(name, FIRST + status.st_uid, FIRST + status.st_gid, follow_symlinks=False)
    open_parents(own_root)
    return Box(own_root, box.host, "box")
