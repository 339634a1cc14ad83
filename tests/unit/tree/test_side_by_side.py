"""Pytest processes that run side by side count as one run."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import PARTS, processes_of
from tests.eventually import eventually
from tests.paths import ROOT
from tests.side_by_side import SideBySide

MEETS = """
import pathlib, time
def test_meets():
    here = pathlib.Path(__file__).parent.parent
    (here / "{mine}").touch()
    deadline = time.monotonic() + 60
    while not (here / "{other}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
    yield tmp_path


def write_tests(folder: Path, name: str, text: str) -> str:
    (folder / name).mkdir()
    (folder / name / f"test_{name}.py").write_text(text)
    return str(folder / name)


def test_two_run_at_once_and_are_counted_together(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = SideBySide()
    run.start(write_tests(folder, "one", MEETS.format(mine="1", other="2") + "def test_fails():\n    assert 0\n"))
    run.start(write_tests(folder, "two", MEETS.format(mine="2", other="1")))
    assert run.finish() == 1
    lines = capsys.readouterr().out.splitlines()
    assert "==== 1 failed, 2 passed in " in lines[-1]
    assert lines[-2].startswith(f"{folder}/two: 1 passed in ")
    assert lines[-3].startswith(f"{folder}/one: 1 failed, 1 passed in ")
    assert "    def test_fails():" in lines


def test_folders_without_a_chosen_test_fail_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = SideBySide()
    run.start(write_tests(folder, "one", "def test_chosen():\n    pass\n"), "-k", "chosen")
    run.start(write_tests(folder, "two", "def test_other():\n    pass\n"), "-k", "chosen")
    assert run.finish() == 0
    assert "==== 1 deselected, 1 passed in " in capsys.readouterr().out


def test_a_process_that_stays_does_not_hold_up_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.side_by_side.LAST_LINES", 0.5)
    left = f"import subprocess\ndef test_it():\n    subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(20)'])\n"
    run = SideBySide()
    run.start(write_tests(folder, "one", left), "-s")
    assert run.finish() == 0


def test_a_run_that_is_stopped_ends_its_processes_and_starts_no_others(folder: Path) -> None:
    run = SideBySide()
    waits = "import pathlib, time\ndef test_it():\n    (pathlib.Path(__file__).parent / 'runs').touch()\n    time.sleep(100)\n"
    folders = [write_tests(folder, name, waits) for name in ("one", "two", "three")]
    for name in folders:
        run.start(name)
    eventually(lambda: all((Path(name) / "runs").exists() for name in folders[:2]))
    run.stop()
    assert not (Path(folders[2]) / "runs").exists()


@pytest.mark.parametrize("folder", [folder for folder, part in PARTS.items() if part.apart])
def test_what_runs_apart_runs_once(folder: str) -> None:
    """Every file of the part is in one of its two processes, and in no more."""
    apart, (whole, *ignored) = processes_of(folder, PARTS[folder])
    assert whole == folder
    assert ignored == [f"--ignore={path}" for path in apart]
    assert all((ROOT / path).exists() and path.startswith(f"{folder}/") for path in apart)
