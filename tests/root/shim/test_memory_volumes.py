"""Volumes in memory, by what kubelet has mounted on the host."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.shim import memory_volumes, mounts

pytestmark = pytest.mark.root
SIZE = 8 << 20


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[Path]:
    """A pod's folder with the tmpfs of a volume, and two more of its kind that are something else."""
    options = f"size={SIZE},mode=2770,gid=2000,nosuid"
    for place in (f"{memory_volumes.PLUGIN}/cache", "kubernetes.io~secret/key"):
        (tmp_path / place).mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", tmp_path / place], check=True)
    (tmp_path / memory_volumes.PLUGIN / "disk").mkdir()
    yield tmp_path
    mounts.unmount(tmp_path)


def test_a_volume_in_memory(volumes: Path) -> None:
    found = memory_volumes.of(volumes / memory_volumes.PLUGIN / "cache")
    assert found is not None
    (storage,) = found.storages
    assert found.path == storage.mount_point == f"{memory_volumes.FOLDER}/cache"
    assert (storage.driver, storage.fstype) == ("ephemeral", "tmpfs")
    assert list(storage.options) == ["mode=2770", "uid=0", "gid=2000", f"size={SIZE}", "nosuid"]


def test_a_folder_of_it(volumes: Path) -> None:
    """kubelet binds a subPath to a folder of its own, with no name of the volume in it that could be relied on."""
    inside = volumes / memory_volumes.PLUGIN / "cache" / "a b"
    place = volumes / "volume-subpaths" / "0"
    inside.mkdir(mode=0o750)
    place.mkdir(parents=True)
    mounts.mount(str(inside), place, None, mounts.MS_BIND)
    found = memory_volumes.of(place)
    assert found is not None
    whole, folder = found.storages
    assert whole.mount_point == f"{memory_volumes.FOLDER}/cache"
    assert found.path == folder.mount_point == f"{memory_volumes.FOLDER}/cache/a b"
    assert (folder.driver, list(folder.options)) == ("local", ["mode=2750", "fsgid=2000"])


def test_what_is_none(volumes: Path) -> None:
    for name in (f"{memory_volumes.PLUGIN}/disk", "kubernetes.io~secret/key", memory_volumes.PLUGIN):
        assert memory_volumes.of(volumes / name) is None
