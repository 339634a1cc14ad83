"""What is mounted for a guest, in a namespace that has a copy of the share, and how it goes: never with the sources' files."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.shim import mounts

pytestmark = pytest.mark.root


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A shared mount, as a VM has one."""
    folder = tmp_path / "vm" / "shared"
    folder.mkdir(parents=True)
    mounts.make_shared(folder)
    yield folder
    mounts.remove(tmp_path / "vm")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source, of a user"
    folder.mkdir()
    (folder / "file").write_text("kept")
    return folder


def test_the_sources_stay(tmp_path: Path, shared: Path, source: Path) -> None:
    mounts.bind(source, shared / "a" / "volumes" / "0", read_only=False)
    mounts.bind(source / "file", shared / "a" / "volumes" / "1" / "file", read_only=True)
    mounts.bind(source, shared / "a" / "volumes" / "0" / "file with spaces", read_only=False)
    assert (shared / "a/volumes/1/file").read_text() == "kept"
    with pytest.raises(OSError, match="Read-only"):
        (shared / "a/volumes/1/file").write_text("x")
    assert len(mounts.below(shared / "a")) == 3
    mounts.remove(shared / "a")
    assert not (shared / "a").exists()
    mounts.remove(tmp_path / "vm")
    assert (source / "file").read_text() == "kept"
    assert mounts.below(tmp_path) == []
    mounts.remove(tmp_path / "vm")


def test_another_namespace_sees_what_comes_later(shared: Path, source: Path) -> None:
    command = f"echo ready; read line; cat {shared}/late/file; read line; ls {shared}"
    argv = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", command]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as other:
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        mounts.bind(source, shared / "late", read_only=False)
        other.stdin.write("\n")
        assert other.stdout.read(4) == "kept"
        mounts.remove(shared / "late")
        other.stdin.write("\n")
        assert other.stdout.read() == ""


def test_a_snapshot_of_overlayfs(shared: Path, source: Path, tmp_path: Path) -> None:
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    lower = tmp_path / "lower"
    source.rename(lower)
    options = ["index=off", f"workdir={work}", f"upperdir={upper}", f"lowerdir={lower}"]
    mounts.mount_snapshot("overlay", "overlay", options, shared / "a" / "rootfs")
    (shared / "a/rootfs/new").write_text("x")
    assert sorted(os.listdir(shared / "a/rootfs")) == ["file", "new"]
    assert os.listdir(upper) == ["new"]
    with pytest.raises(InnkeeperError, match="the kernel takes 4095"):
        mounts.mount_snapshot("overlay", "overlay", [f"lowerdir={'/x:' * 2000}"], shared / "b")
