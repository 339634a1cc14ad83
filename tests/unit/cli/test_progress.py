"""What steps print on standard error: plain lines, or a live line on a terminal that has rich."""

import json
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


EVENTS = """
from innkeeper import progress
progress.be_json()
try:
    with progress.step("making it"):
        progress.note("half")
        progress.warn("careful")
        raise OSError
except OSError:
    progress.failure("it failed", "mend it", 125)
with progress.step("again"):
    pass
"""


def test_each_line_is_an_event() -> None:
    done = subprocess.run([sys.executable, "-c", EVENTS], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert all(event.pop("time") > 1e9 for event in events)
    assert all(event.pop("seconds") >= 0 for event in events if event["event"] in ("finished", "failed"))
    assert events == [
        {"event": "started", "step": "making it"},
        {"event": "note", "text": "half"},
        {"event": "warning", "text": "careful"},
        {"event": "failed", "step": "making it"},
        {"event": "error", "message": "it failed", "hint": "mend it", "exit_status": 125},
        {"event": "started", "step": "again"},
        {"event": "finished", "step": "again"},
    ]
