"""What is mounted for a guest, seen as virtiofsd sees it: from a copy of the VM's mount namespace. It goes without the sources' files."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.shim import mounts
from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.shim.shared_folder import SharedFolder
from tests.eventually import eventually

pytestmark = pytest.mark.root


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[SharedFolder]:
    folder = SharedFolder(tmp_path / "shared")
    yield folder
    folder.close()


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    """A folder of a user, which is a mount of the host whose later mounts appear elsewhere."""
    folder = tmp_path / "source, of a user"
    folder.mkdir()
    (folder / "file").write_text("kept")
    mounts.make_shared(folder)
    yield folder
    mounts.unmount(folder)


class View:
    """A shell in a copy of the namespace, where mounts of it appear and none goes back."""

    def __init__(self, shell: "subprocess.Popen[str]") -> None:
        self._shell = shell

    def run(self, command: str) -> str:
        """Return all output of a command."""
        assert self._shell.stdin is not None and self._shell.stdout is not None
        self._shell.stdin.write(f"{{ {command}; }} 2>&1; echo; echo END\n")
        self._shell.stdin.flush()
        return "".join(iter(self._shell.stdout.readline, "END\n")).strip()


@contextmanager
def view(shared: SharedFolder) -> Iterator[View]:
    argv = ["nsenter", f"--mount={shared.namespace.path}", "unshare", "--mount", "--propagation", "slave", "sh"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        seen = View(shell)
        assert seen.run("echo ready") == "ready"
        yield seen


def test_what_comes_later_is_seen_and_goes_without_its_files(shared: SharedFolder, source: Path) -> None:
    path = shared.path
    with view(shared) as seen:
        shared.bind(source, path / "a" / "volumes" / "0", read_only=False)
        shared.bind(source / "file", path / "a" / "volumes" / "1" / "file", read_only=True)
        assert seen.run(f"cat {path}/a/volumes/0/file") == "kept"
        assert "Read-only" in seen.run(f"echo x > {path}/a/volumes/1/file")
        assert seen.run(f"echo new > {path}/a/volumes/0/made") == ""
        assert (source / "made").read_text() == "new\n"
        assert mounts.below(path) == []
        shared.remove(path / "a")
        assert seen.run(f"ls {path}") == ""
        assert os.listdir(path) == []
    assert sorted(os.listdir(source)) == ["file", "made"]


def test_a_folder_with_mounts_below_it_can_be_removed(shared: SharedFolder, source: Path) -> None:
    """kubelet does so with a volume whose container is there yet."""
    (source / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", source / "below"], check=True)
    (source / "below/file").write_text("in memory")
    with view(shared) as seen:
        shared.bind(source, shared.path / "0", read_only=True, recursive=False)
        shared.bind(source, shared.path / "1", read_only=True)
        assert seen.run(f"cat {shared.path}/0/below/file") == "in memory"
        assert seen.run(f"echo x > {shared.path}/0/below/new") == ""
        assert "Read-only" in seen.run(f"echo x > {shared.path}/0/new")
        assert "Read-only" in seen.run(f"echo x > {shared.path}/1/below/new")
        subprocess.run(["umount", source / "below"], check=True)
        (source / "below").rmdir()
        assert seen.run(f"ls {shared.path}/0") == "file"


@pytest.mark.parametrize("follows", [True, False])
def test_mounts_that_the_host_makes_later(shared: SharedFolder, source: Path, follows: bool) -> None:
    (source / "below").mkdir()
    with view(shared) as seen:
        shared.bind(source, shared.path / "0", read_only=False, follows=follows)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", source / "below"], check=True)
        (source / "below/file").write_text("late")
        assert seen.run(f"ls {shared.path}/0/below") == ("file" if follows else "")
        subprocess.run(["umount", source / "below"], check=True)
        eventually(lambda: seen.run(f"ls {shared.path}/0/below") == "")


def test_the_source_is_looked_up_on_the_host(shared: SharedFolder, tmp_path: Path) -> None:
    """Where the host's mounts are private, the namespace does not have those that were made after it."""
    source = tmp_path / "private"
    source.mkdir()
    subprocess.run(["mount", "--make-private", "-t", "tmpfs", "tmpfs", source], check=True)
    try:
        (source / "file").write_text("found")
        with view(shared) as seen:
            shared.bind(source, shared.path / "0", read_only=False)
            assert seen.run(f"cat {shared.path}/0/file") == "found"
    finally:
        mounts.unmount(source)


def test_a_snapshot_of_overlayfs(shared: SharedFolder, tmp_path: Path) -> None:
    lower, upper, work = (tmp_path / name for name in ("lower", "upper", "work"))
    for folder in (lower, upper, work):
        folder.mkdir()
    (lower / "file").write_text("kept")
    options = ["index=off", f"workdir={work}", f"upperdir={upper}", f"lowerdir={lower}"]
    root = shared.path / "a" / "rootfs"
    with view(shared) as seen:
        shared.mount_snapshot([pb.Mount(type="overlay", source="overlay", options=options)], root)
        assert seen.run(f"echo x > {root}/new; ls {root}").split() == ["file", "new"]
        assert os.listdir(upper) == ["new"]
        shared.mount_snapshot([pb.Mount(type="bind", source=str(lower), options=["rbind", "ro"])], shared.path / "b")
        assert "Read-only" in seen.run(f"cat {shared.path}/b/file; echo x > {shared.path}/b/new")
    assert mounts.below(tmp_path) == []
    with pytest.raises(InnkeeperError, match="the kernel takes 4095"):
        shared.mount_snapshot([pb.Mount(type="overlay", source="overlay", options=[f"lowerdir={'/x:' * 2000}"])], shared.path / "c")


def test_nothing_is_left_of_what_the_host_has_mounted(tmp_path: Path) -> None:
    """As shims of earlier versions did."""
    folder, source = tmp_path / "vm", tmp_path / "source"
    folder.mkdir()
    source.mkdir()
    (source / "file").write_text("kept")
    mounts.make_shared(folder)
    for name in ("0", "with a space"):
        (folder / name).mkdir()
        mounts.mount(str(source), folder / name, None, mounts.MS_BIND)
    assert len(mounts.below(folder)) == 3
    mounts.remove(folder)
    assert not folder.exists() and mounts.below(tmp_path) == []
    assert (source / "file").read_text() == "kept"
    mounts.remove(folder)
