"""The scratch disk: an empty file system, made once for each size."""

import subprocess
from pathlib import Path

import pytest

from innkeeper import paths
from innkeeper.engine import scratch
from innkeeper.errors import InnkeeperError
from tests.eventually import pause
from tests.needs import needs

pytestmark = needs("mke2fs")
SIZE = 64 << 20


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A cache, and the programs that were run."""
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path / "cache"))
    real, calls = subprocess.run, []

    def run(argv: list[str], **given: object) -> object:
        calls.append(argv)
        return real(argv, **given)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def made(folder: Path, size: int = SIZE, **given: int) -> Path:
    folder.mkdir()
    return scratch.make_disk(folder, size, **given)


def test_a_file_system_is_made_once_for_each_size(tmp_path: Path, runs: list[list[str]]) -> None:
    first, second = made(tmp_path / "a"), made(tmp_path / "b")
    assert len(runs) == 1
    for disk in (first, second):
        assert disk.stat().st_size == SIZE
        assert disk.stat().st_blocks * 512 < SIZE // 8
        subprocess.run(["e2fsck", "-fn", str(disk)], check=True, capture_output=True)
    assert first.read_bytes() == second.read_bytes()
    first.write_bytes(b"changed")
    assert made(tmp_path / "c").read_bytes() == second.read_bytes()
    small = made(tmp_path / "d", SIZE * 2, filesystem_mib=32)
    assert (small.stat().st_size, sum("mke2fs" in argv[0] for argv in runs)) == (SIZE * 2, 2)


def test_the_sizes_used_last_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "KEPT", 2)
    for number, size in enumerate((SIZE, SIZE * 2, SIZE, SIZE * 3)):
        made(tmp_path / str(number), size)
        pause(0.02, "two ticks of the kernel's clock, from which files have their times")
    kept = {int(path.name.partition("-")[0]) for path in (paths.cache_root() / "scratch").glob("*.img")}
    assert kept == {SIZE, SIZE * 3}


def test_a_failure_keeps_nothing(tmp_path: Path) -> None:
    with pytest.raises(InnkeeperError, match="mke2fs failed"):
        made(tmp_path / "a", 4096)
    with pytest.raises(InnkeeperError, match="cannot be made"):
        scratch.make_disk(tmp_path / "missing", SIZE)
    assert len(list((paths.cache_root() / "scratch").glob("*.img*"))) == 1


def test_what_a_process_left_that_was_killed_is_removed(tmp_path: Path) -> None:
    left = paths.cache_root() / "scratch" / ".1-0-ab.img.0123456789abcdef"
    left.parent.mkdir(parents=True)
    left.touch()
    made(tmp_path / "a")
    assert not left.exists()
