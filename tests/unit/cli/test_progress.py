"""What steps print on standard error: plain lines, or a live line on a terminal that has rich."""

import os
import subprocess
import sys

import pytest

from tests.paths import ROOT

STEP = """
from innkeeper import progress
with progress.step("making it"):
    progress.note("half")
"""


@pytest.mark.parametrize("words", [["-S"], []], ids=["without rich", "with rich"])
def test_a_step_on_a_terminal(words: list[str]) -> None:
    """Without the packages too: on the first run, build.py prints the step in which they are installed."""
    ours, theirs = os.openpty()
    try:
        done = subprocess.run([sys.executable, *words, "-c", STEP], stderr=theirs, cwd=ROOT, timeout=60, check=False)
        printed = os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0, printed
    assert ("making it ...\r\n" in printed) is ("-S" in words), printed
    assert "half\r\n" in printed
    assert "making it: done in" in printed
