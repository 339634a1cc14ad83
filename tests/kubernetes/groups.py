"""The control group that holds a cluster's pods, one in each hierarchy. kubelet and runtimes leave some of what is below it."""

from functools import partial
from pathlib import Path

from tests.eventually import poll

ROOT = Path("/sys/fs/cgroup")
COPIED = ("cpuset.cpus", "cpuset.mems")
"""What a new group of cpuset (v1) has not got by itself."""
CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids", "hugetlb")


def _hierarchies() -> list[Path]:
    """Return where groups are made: the mount point of v2 if it is alone, otherwise those of v1."""
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    return [path for path in ROOT.iterdir() if path.is_mount() and not path.is_symlink()]


def make(name: str) -> None:
    """Make the group. kubelet wants it to be there, with its controllers."""
    for hierarchy in _hierarchies():
        group = hierarchy / name
        group.mkdir()
        for setting in COPIED:
            if hierarchy != ROOT and (hierarchy / setting).exists():
                (group / setting).write_text((hierarchy / setting).read_text())
        if hierarchy == ROOT:
            there = (group / "cgroup.controllers").read_text().split()
            (group / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in CONTROLLERS if one in there))


def left(name: str) -> set[str]:
    """Return the groups named `name`, or below one, anywhere in the hierarchies."""
    tops = [*ROOT.glob(name), *ROOT.glob(f"*/{name}")]
    return {str(path) for top in tops for path in (top, *top.rglob("*")) if path.is_dir()}


def remove(name: str) -> None:
    """Remove the group and what is below it: groups without processes, as is asserted by rmdir(2)."""
    for path in sorted(left(name), key=len, reverse=True):
        assert poll(partial(_removed, Path(path)), 20), f"{path} is in use: {(Path(path) / 'cgroup.procs').read_text().split()}"


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        return False
    return True
