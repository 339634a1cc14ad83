"""The manager of a cgroup over a directory of plain files in place of cgroup2: what is written, refused and restored, without root."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from agent import loop
from agent.container.cgroup import files, manager
from agent.container.cgroup.manager import Cgroup
from agent.container.spec.document import parse_resources
from agent.errors import Refused, StepFailed, WrongState

FILES = {
    "cgroup.controllers": "cpu memory pids",
    "cgroup.subtree_control": "",
    "cgroup.procs": "",
    "cgroup.events": "populated 0\nfrozen 0\n",
    "cgroup.freeze": "0",
    "memory.max": "max",
    "memory.swap.max": "max",
    "memory.current": "4096",
    "memory.events": "low 0\noom_kill 3\n",
    "pids.max": "max",
    "cpu.max": "max 100000",
}


def fill(directory: Path, **files: str) -> Path:
    """Make the files that the kernel makes in a cgroup. `files` replace some, with _ for the dot."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in {**FILES, **{name.replace("_", ".", 1): text for name, text in files.items()}}.items():
        (directory / name).write_text(content)
    return directory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(tmp_path / "cgroup")


def create(root: Path, **resources: Any) -> Cgroup:
    return Cgroup.create(root, "box", parse_resources(resources))


def test_limits_are_written_and_their_controllers_enabled(root: Path) -> None:
    box = fill(root / "box")
    cgroup = create(root, memory={"limit": 1 << 20, "swap": 3 << 20}, pids={"limit": 7})
    assert (root / "cgroup.subtree_control").read_text() == "+memory +pids"
    written = {name: (box / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.max")}
    # A plain file keeps the tail of a longer old value, where cgroup2 replaces it.
    assert written == {"memory.max": "1048576", "memory.swap.max": "2097152", "pids.max": "7ax", "cpu.max": "max 100000"}
    assert cgroup.earlier_oom_kills == 3
    cgroup.close()
    cgroup.close()


def test_a_limit_without_its_controller_is_refused_by_name(root: Path) -> None:
    fill(root / "box", cgroup_controllers="memory")
    with pytest.raises(Refused) as caught:
        create(root, pids={"limit": 7})
    assert caught.value.field == "linux.resources.pids.limit"
    assert "no pids controller" in caught.value.reason


def test_a_file_that_the_kernel_lacks_is_refused_by_name(root: Path) -> None:
    (fill(root / "box") / "memory.swap.max").unlink()
    with pytest.raises(Refused, match=r"memory\.swap"):
        create(root, memory={"limit": 1 << 20, "swap": 3 << 20})


@pytest.mark.parametrize(
    ("files", "why"), [({"cgroup_procs": "12\n13\n"}, "has processes"), ({"cgroup_events": "populated 0\nfrozen 1\n"}, "is frozen")]
)
def test_a_cgroup_in_use_is_not_taken(root: Path, files: dict[str, str], why: str) -> None:
    fill(root / "box", **files)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(WrongState, match=why):
        create(root)
    assert os.listdir("/proc/self/fd") == before


def test_a_failure_removes_the_directories_that_were_made(root: Path) -> None:
    (root / "cgroup.subtree_control").unlink()
    with pytest.raises(StepFailed, match="make cgroup"):
        Cgroup.create(root, "a/b", parse_resources({}))
    assert not (root / "a").exists()


def test_a_refused_change_restores_the_earlier_limits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written in a worker, whose answer names the field that was refused."""
    box = fill(root / "box")
    cgroup = create(root)
    written = files.write

    def refuse_pids(cgroup: int, name: str, value: str) -> None:
        if name == "pids.max":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        written(cgroup, name, value)

    monkeypatch.setattr(files, "write", refuse_pids)

    async def change() -> None:
        await cgroup.apply(parse_resources({"memory": {"limit": 123}, "pids": {"limit": 5}}))

    with pytest.raises(Refused) as caught:
        loop.run(change())
    assert caught.value.field == "linux.resources.pids.limit"
    assert (box / "memory.max").read_text() == "max"
    assert (box / "pids.max").read_text() == "max"
    cgroup.close()


def test_a_limit_below_the_use_is_refused_if_that_is_asked_for(root: Path) -> None:
    fill(root / "box", memory_current="5000")
    cgroup = create(root)

    async def change() -> None:
        await cgroup.apply(parse_resources({"memory": {"limit": 4096, "checkBeforeUpdate": True}}))

    with pytest.raises(Refused, match="less than what is in use"):
        loop.run(change())
    cgroup.close()


def test_a_freeze_that_does_not_end_is_taken_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "FREEZE_SECONDS", 0.05)
    box = fill(root / "box")
    cgroup = create(root)
    with pytest.raises(StepFailed, match="is not frozen after"):
        loop.run(cgroup.freeze(True))
    assert (box / "cgroup.freeze").read_text() == "0"
    cgroup.close()


def test_processes_below_are_of_the_cgroup_too(root: Path) -> None:
    box = fill(root / "box")
    cgroup = create(root)
    fill(box / "inner", cgroup_procs="77\n")
    (box / "cgroup.procs").write_text("5\n")
    assert sorted(cgroup.pids()) == [5, 77]
    os.close(cgroup.open_cgroup_of(77))
    with pytest.raises(WrongState, match="process 6 is in no cgroup"):
        cgroup.open_cgroup_of(6)
    cgroup.close()
    assert cgroup.read("memory.max") == "", "nothing is read of a cgroup that is closed"
