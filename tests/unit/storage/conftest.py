"""The kernel that the drivers of this folder's tests see."""

from pathlib import Path

import pytest

from tests.unit.storage import kernel


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> kernel.Kernel:
    """Stand-ins for the system calls; new file systems are folders below `tmp_path`/kernel."""
    folder = tmp_path / "kernel"
    folder.mkdir()
    return kernel.install(monkeypatch, folder)
