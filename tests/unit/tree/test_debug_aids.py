"""What a run says by itself of a test that fails or is slow: the consoles of its guests, and the time of its set-up."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import FEW_TESTS
from tests.guest_consoles import LINES
from tests.paths import ROOT

FAILS = f"""
import os, pathlib, shutil
import pytest
from innkeeper.paths import vms_root
from tests.eventually import eventually
from tests.needs import OF_MARKER

OF_MARKER.clear()

def open_files():
    return [os.readlink(f"/proc/self/fd/{{fd}}") for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{{fd}}")]

def boot(name):
    folder = vms_root() / name
    folder.mkdir(parents=True)
    (folder / "console.log").write_text("".join(f"{{name}} line {{number}}\\n" for number in range({LINES} + 50)))
    eventually(lambda: str(folder / "console.log") in open_files())
    shutil.rmtree(folder)

@pytest.mark.vm
def test_passes():
    boot("earlier")

@pytest.mark.vm
def test_fails():
    boot("guest")
    assert False

@pytest.mark.vm
def test_fails_without_a_guest():
    assert False
"""
SLOW = """
import pytest
from tests.eventually import pause

@pytest.fixture
def slow():
    pause(1.1, "a set-up that takes long")

def test_with_a_slow_set_up(slow): pass

def test_without(): pass
"""
MANY = f"""
@pytest.mark.parametrize("number", range({FEW_TESTS}))
def test_many(number): pass
"""


def run(folder: Path, text: str) -> str:
    """Run pytest with this tree's hooks on a file of tests; return what it prints."""
    (folder / "test_aids.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    vm\n    needs\n    long\n")
    environment = {**os.environ, "PYTEST_ADDOPTS": "", "PYTHONPATH": str(ROOT), "INNKEEPER_CACHE": str(folder / "cache")}
    argv = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False).stdout


def test_a_failure_shows_the_consoles_of_its_guests_although_they_have_gone(tmp_path: Path) -> None:
    output = run(tmp_path, FAILS)
    assert "2 failed, 1 passed" in output, output
    failed, _, other = output.partition("test_fails_without_a_guest")
    assert "guest/console.log" in failed
    assert f"guest line {LINES + 49}\n" in failed
    assert "guest line 50\n" in failed
    assert "guest line 49\n" not in failed
    assert "earlier line" not in output, "of a guest that had gone before the test"
    assert "guest line" not in other


def test_a_long_set_up_is_named_when_few_tests_ran(tmp_path: Path) -> None:
    output = run(tmp_path, SLOW)
    assert re.findall(r"^set-up took [0-9.]+ s: (.*)$", output, re.MULTILINE) == ["test_aids.py::test_with_a_slow_set_up"]
    assert "set-up took" not in run(tmp_path, SLOW + MANY)
