"""What `virtiofsd_wrapper` puts before virtiofsd, seen by a program in virtiofsd's place."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from innkeeper.vm import Share, SharedPath, virtiofsd
from tests.mounts import mounts
from tests.needs import needs

pytestmark = pytest.mark.root


def run(mode: str, source: Path, stand: Path, script: str) -> "subprocess.CompletedProcess[str]":
    stand.mkdir(exist_ok=True)
    argv = [sys.executable, "-I", "-S", str(virtiofsd.WRAPPER), str(os.getpid()), "", str(stand), "1", mode, "", str(source)]
    return subprocess.run([*argv, "/bin/sh", "-c", f"cd {stand} && {script}"], capture_output=True, text=True, check=False)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "file").write_text("content\n")
    (folder / "other").write_text("secret\n")
    return folder


def test_a_folder_can_be_written(source: Path, tmp_path: Path) -> None:
    before = mounts(tmp_path.parent)
    done = run("rw", source, tmp_path / "stand", "cat file && echo new > made")
    assert (done.returncode, done.stdout) == (0, "content\n"), done.stderr
    assert (source / "made").read_text() == "new\n"
    assert list((tmp_path / "stand").iterdir()) == []
    assert mounts(tmp_path.parent) == before


@pytest.mark.parametrize("attempt", ["touch made", "echo x > file", "rm file", "chmod 777 file", "mkdir d", "ln -s a b"])
def test_a_read_only_folder_cannot(source: Path, tmp_path: Path, attempt: str) -> None:
    done = run("ro", source, tmp_path / "stand", attempt)
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr
    assert sorted(p.name for p in source.iterdir()) == ["file", "other"]
    assert (source / "file").read_text() == "content\n"


def test_read_only_holds_for_mounts_below(source: Path, tmp_path: Path) -> None:
    below = source / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", below], check=True)
    try:
        done = run("ro", source, tmp_path / "stand", "touch below/x")
        assert "Read-only file system" in done.stderr
        assert list(below.iterdir()) == []
        assert run("rw", source, tmp_path / "stand", "touch below/x").returncode == 0
        assert [p.name for p in below.iterdir()] == ["x"]
    finally:
        subprocess.run(["umount", below], check=True)


def test_a_file_comes_alone(source: Path, tmp_path: Path) -> None:
    done = run("rw", source / "file", tmp_path / "stand", "ls && cat file && echo changed > file")
    assert (done.returncode, done.stdout) == (0, "file\ncontent\n"), done.stderr
    assert (source / "file").read_text() == "changed\n"
    assert "Read-only file system" in run("rw", source / "file", tmp_path / "stand", "touch made").stderr
    assert "Read-only file system" in run("ro", source / "file", tmp_path / "stand", "echo x > file").stderr
    assert (source / "file").read_text() == "changed\n"


def test_several_paths_lie_below_a_root_that_cannot_be_written(source: Path, tmp_path: Path) -> None:
    stand = tmp_path / "stand"
    stand.mkdir()
    paths = (
        SharedPath("0", source),
        SharedPath("1", source, read_only=True),
        SharedPath("2", source / "file", read_only=True),
        SharedPath("3", source / "file"),
    )
    script = "ls; ls 2; echo a > 0/made; echo changed > 3/file; cat 2/file; for f in x 1/x 2/x 3/x 2/file; do echo x > $f; done"
    arguments = virtiofsd.wrapper_arguments(Share("tag", paths), stand)
    argv = [sys.executable, "-I", "-S", str(virtiofsd.WRAPPER), str(os.getpid()), *arguments, "/bin/sh", "-c", f"cd {stand} && {script}"]
    before = mounts(tmp_path.parent)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["0", "1", "2", "3", "file", "changed"]
    assert done.stderr.count("Read-only file system") == 5
    assert (source / "made").read_text() == "a\n"
    assert (mounts(tmp_path.parent), list(stand.iterdir())) == (before, [])


def test_pid_files_of_two_machines_are_apart(source: Path, tmp_path: Path) -> None:
    """Both name their first share's file alike."""
    pid_file = Path("/run/virtiofsd/first.pid")
    for number in range(2):
        done = run("rw", source, tmp_path / f"stand{number}", f"ls -A {pid_file.parent}; set -C; echo 1 > {pid_file}")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert not pid_file.exists()


def test_it_does_not_start_for_an_owner_that_has_gone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "stand").mkdir()
    argv = [
        sys.executable,
        "-I",
        "-S",
        str(virtiofsd.WRAPPER),
        "1",
        "",
        str(tmp_path / "stand"),
        "1",
        "rw",
        "",
        str(source),
        "/bin/echo",
        "started",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "owner has gone" in done.stderr


@needs("user-namespaces")
def test_an_ordinary_user_can_too() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for made in ("source", "stand"):
            (folder / made).mkdir()
        (folder / "source" / "file").write_text("content\n")
        entry = Path(shutil.copy(virtiofsd.WRAPPER, folder))  # the source tree may be closed to others
        script = f"/usr/bin/python3 -I -S {entry} $$ '' stand 1 ro '' source /bin/sh -c 'cat stand/file; touch stand/x'; true"
        argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", "/bin/sh", "-c", script]
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout == "content\n", done.stderr
    assert "Read-only file system" in done.stderr
