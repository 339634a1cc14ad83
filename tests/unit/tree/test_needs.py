"""What a host lacks is left out with its reason at the end of a run; in CI it fails, but for the few parts that `tests.needs` names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import NOT_IN_CI
from tests.paths import ROOT

TESTS = """
import pytest
from tests.needs import needs

@needs("shim")
def test_the_shim(): pass

@needs("module:no_such_module")
def test_a_module(): pass

@pytest.mark.long
def test_of_minutes(): pass

def test_sigint_ends_what_a_test_starts():
    import signal, subprocess
    assert subprocess.run(["sh", "-c", "kill -INT $$; echo alive"], stdout=-1).returncode == -signal.SIGINT
"""
SHIM = "   1 test(s): KATA_SHIM=/no/such/shim is not an executable file"
MODULE = "has no module no_such_module"
LONG = "   1 test(s): takes minutes: only with --long"


def run(folder: Path, ci: str) -> tuple[int, str]:
    """The status and the output of pytest with TESTS, on a host without Kata's shim."""
    (folder / "test_parts.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    needs\n    long\n")
    environment = {**os.environ, "PYTEST_ADDOPTS": "", "CI": ci, "KATA_SHIM": "/no/such/shim", "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    # as in a shell's background, where SIGINT is ignored
    background = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *argv]
    done = subprocess.run(background, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_what_is_missing_is_named_at_the_end(tmp_path: Path) -> None:
    status, output = run(tmp_path, "")
    assert status == 0, output
    assert "1 passed, 3 skipped" in output
    summary = output[output.index("left out on this host") :]
    assert SHIM in summary
    assert LONG in summary
    assert MODULE in summary


def test_in_ci_only_the_named_parts_may_be_missing(tmp_path: Path) -> None:
    status, output = run(tmp_path, "true")
    assert status == 1, output
    assert f"left out although CI=true: {Path(sys.executable).name} {MODULE}" in output
    summary = output[output.index("left out on this host") :]
    assert f"{SHIM}; with CI=true too: {NOT_IN_CI['shim']}" in summary
    assert MODULE not in summary.partition("short test summary")[0]


def test_every_exception_has_a_reason() -> None:
    assert NOT_IN_CI.keys() == {"shim", "kubernetes"}
    assert all(len(reason) > 40 for reason in NOT_IN_CI.values())


@pytest.mark.parametrize("part", sorted(NOT_IN_CI))
def test_an_exception_is_a_part(part: str) -> None:
    from tests.needs import PARTS

    assert part in PARTS
