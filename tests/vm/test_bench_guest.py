"""The bench in the guest: it measures what it says. No time is compared with anything."""

import json
from pathlib import Path

import pytest

from innkeeper.cli import main
from tests.needs import needs

pytestmark = [pytest.mark.vm, needs("busybox", "mke2fs")]


def test_guest_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "figures.json"
    assert main(["bench", "--only", "guest", "--rounds", "1", "--boots", "1", "--megabytes", "1", "--json", str(output)]) == 0
    document = json.loads(output.read_text())
    sections = {section["title"]: {row["name"]: row for row in section["figures"]} for section in document["sections"]}
    assert sections["sizes"]["kernel (bzImage)"]["met"] and sections["sizes"]["root file system"]["met"]
    boot = [row["median"] for row in sections["boot, from QEMU's start"].values()]
    assert list(sections["boot, from QEMU's start"]) == ["kernel begins", "PID 1 starts", "PID 1 listens", "first Check answered"]
    assert boot == sorted(boot)
    assert sections["PID 1, everything loaded"]["threads"]["median"] == 1
    for name in ("round trip of Check", "standard output", "standard input"):
        assert sections["calls and streams over vsock"][name]["median"] > 0
    assert "create, start, exit, remove" in capsys.readouterr().out
