"""The guest that the sandbox of this folder's tests is in."""

from pathlib import Path

import pytest

from tests.unit.agent.fake_guest import Guest


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guest:
    """A sandbox that is not created yet, over stand-ins for the system calls."""
    return Guest(monkeypatch, tmp_path)
