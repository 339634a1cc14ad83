"""The record of the last run's guest: used as long as no input of the build has changed, and else not."""

import os
from pathlib import Path

import pytest

from innkeeper import guest, paths
from innkeeper.guest import BootFiles, boot_record, pipeline
from tests.eventually import pause


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree and a cache, whose files changed long enough ago."""
    root = tmp_path / "project"
    for folder in ("agent/linux", "innkeeper/guest", "kernel-config", "rootfs"):
        (root / folder).mkdir(parents=True)
        (root / folder / "file").write_text("x")
    for file in ("guest.lock", "pyproject.toml"):
        (root / file).write_text("x")
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(paths, "project_root", lambda: root)
    monkeypatch.setattr(boot_record, "SETTLED_NS", 0)
    return root


def boot_files(folder: Path, *, ours: bool = True) -> BootFiles:
    for name in ("vmlinux", "root.erofs"):
        (folder / name).write_text(name)
    return BootFiles(folder / "vmlinux", folder / "root.erofs", "ours", {"A": "why"}, parameters=("a=b",), kernel_is_ours=ours)


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that the pipeline was asked for."""
    asked: list[str] = []

    def make_boot_files(variant: str, kernel: str, **given: object) -> BootFiles:
        asked.append(kernel)
        return boot_files(tmp_path, ours=kernel != "debian")

    monkeypatch.setattr(pipeline, "make_boot_files", make_boot_files)
    return asked


def test_without_a_change_the_build_is_not_looked_through(project: Path, tmp_path: Path, built: list[str]) -> None:
    first = guest.boot_files()
    assert guest.boot_files() == first == boot_files(tmp_path)
    assert built == ["auto"]
    guest.boot_files("debug")
    guest.boot_files(kernel="ours")
    assert built == ["auto", "auto", "ours"]


@pytest.mark.parametrize(
    "change", ["content", "same size and time", "new", "removed", "mode", "lock file", "kernel gone", "record damaged"]
)
def test_after_any_change_it_is(change: str, project: Path, tmp_path: Path, built: list[str]) -> None:
    guest.boot_files()
    file = project / "agent/linux/file"
    if change == "content":
        file.write_text("longer")
    elif change == "same size and time":
        before = file.stat()
        pause(0.02, "two ticks of the kernel's clock, from which files have their times")
        file.write_text("y")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "new":
        (project / "rootfs/more").touch()
    elif change == "removed":
        file.unlink()
    elif change == "mode":
        file.chmod(0o755)
    elif change == "lock file":
        (project / "guest.lock").write_text("other")
    elif change == "kernel gone":
        (tmp_path / "vmlinux").unlink()
    else:
        next((tmp_path / "cache").glob("boot-files-*.json")).write_text("{")
    guest.boot_files()
    assert len(built) == 2


def test_what_may_change_without_a_sign_is_not_recorded(project: Path, built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changed just now may change again under the same time, and ours may take the place of Debian's kernel."""
    for kernel in ("debian", "debian"):
        guest.boot_files(kernel=kernel)
    monkeypatch.setattr(boot_record, "SETTLED_NS", 3600 * 10**9)
    for _ in range(2):
        guest.boot_files()
    guest.boot_files(file=project / "guest.toml")
    assert built == ["debian", "debian", "auto", "auto", "auto"]


def test_bytecode_is_no_input(project: Path, built: list[str]) -> None:
    guest.boot_files()
    (project / "agent/__pycache__").mkdir()
    (project / "agent/__pycache__/file.pyc").touch()
    (project / "agent/file.pyc").touch()
    guest.boot_files()
    assert built == ["auto"]
