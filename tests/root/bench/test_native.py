"""The bench itself: it measures what it says, and leaves nothing behind. No time is compared with anything."""

import json
import os
from pathlib import Path

import pytest

from innkeeper.cli import main
from tests.needs import needs

pytestmark = [pytest.mark.root, needs("cgroup2", "runc", "crun", "busybox", "skopeo", "mkfs.erofs", "module:prctl", "module:pyseccomp")]


def _leftovers() -> tuple[set[str], list[str]]:
    """Groups and mounts of the bench: its agent's, runc's and crun's."""
    groups = {folder for folder, _, _ in os.walk("/sys/fs/cgroup") if "innkeeper-bench" in folder or "innkeeper-agent" in folder}
    return groups, [line for line in Path("/proc/self/mounts").read_text().splitlines() if "innkeeper-bench" in line]


def test_native_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _leftovers()
    assert main(["bench", "--only", "native", "--rounds", "2", "--megabytes", "1", "--json", str(tmp_path / "figures.json")]) == 0
    document = json.loads((tmp_path / "figures.json").read_text())
    figures = {row["name"]: row for section in document["sections"] for row in section["figures"]}
    for name in (
        "agent",
        "runc run",
        "crun run",
        "agent exec",
        "runc exec",
        "crun exec",
        "round trip of Check",
        "standard output",
        "standard input",
    ):
        assert figures[name]["median"] > 0, name
    assert figures["agent / runc run"]["median"] == pytest.approx(figures["agent"]["median"] / figures["runc run"]["median"])
    assert "agent / crun exec" in capsys.readouterr().out
    assert _leftovers() == before
