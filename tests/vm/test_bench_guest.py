"""The bench in the guest: it measures what it says. No time is compared with anything."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import idle, memory
from innkeeper.cli import main
from tests.needs import needs

pytestmark = [pytest.mark.vm, needs("busybox", "mke2fs")]


def measured(output: Path, part: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the rows of one part of the bench by the titles of their sections and by their names."""
    few = ("--rounds", "1", "--boots", "1", "--runs", "1", "--megabytes", "1")
    assert main(["bench", "--only", part, *few, "--json", str(output)]) == 0
    document = json.loads(output.read_text())
    return {section["title"]: {row["name"]: row for row in section["figures"]} for section in document["sections"]}


def test_guest_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sections = measured(tmp_path / "figures.json", "guest")
    assert sections["sizes"]["kernel (bzImage)"]["met"] and sections["sizes"]["root file system"]["met"]
    boot = [row["median"] for row in sections["boot, from QEMU's start"].values()]
    assert list(sections["boot, from QEMU's start"]) == ["kernel begins", "PID 1 starts", "PID 1 listens", "first Check answered"]
    assert boot == sorted(boot)
    assert sections["PID 1, everything loaded"]["threads"]["median"] == 1
    for name in ("round trip of Check", "standard output", "standard input"):
        assert sections["calls and streams of a warm guest"][name]["median"] > 0
    assert "create, start, exit, remove" in capsys.readouterr().out


def test_free_pages_of_a_guest_go_back_to_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "BURST_MIB", 256)
    monkeypatch.setattr(memory, "VM_MIB", 768)
    rows = measured(tmp_path / "figures.json", "memory")["host memory of a VM"]
    megabytes = [row["median"] for row in rows.values()]
    before, peak, after = megabytes[:3]
    assert list(rows)[2] == "free pages given back: 30 s later"
    assert peak - before > 200 and after - before < 70
    before, peak, after = megabytes[3:]
    assert peak - before > 200 and after - before > 200


def test_idle_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "CONTAINERS", 2)
    monkeypatch.setattr(idle, "SETTLE_SECONDS", 1.0)
    rows = measured(tmp_path / "figures.json", "idle")["host memory of idle containers"]
    booted, cloned, ratio = (row["median"] for row in rows.values())
    assert booted > 40 and 0 < cloned < booted and ratio == pytest.approx(cloned / booted)


def test_both_channels_are_measured(tmp_path: Path) -> None:
    rows = measured(tmp_path / "figures.json", "channels")["the channel to the guest"]
    assert [name for name in rows if name.startswith("virtio-serial: ")] == [
        f"virtio-serial: {what}" for what in ("round trip of Check", "standard output", "standard input")
    ]
    assert len(rows) == 6 and all(row["median"] > 0 for row in rows.values())
    assert {row["samples"] for name, row in rows.items() if "round trip" in name} == {200}


def test_shared_folders_are_measured(tmp_path: Path) -> None:
    sections = measured(tmp_path / "figures.json", "shares")
    rows = sections["a folder of the host"]
    titles = ("writing", "reading", "reading it again", "making, listing and removing small files")
    assert list(rows) == [f"{name}: {title}" for title in titles for name in ("virtio-fs", "9p")]
    assert all(row["median"] > 0 for row in rows.values())
    without, beside, ratio = (row["median"] for row in sections["a container with a folder of the host, end to end"].values())
    assert ratio == pytest.approx(beside / without)


def test_commands_are_measured(tmp_path: Path) -> None:
    sections = measured(tmp_path / "figures.json", "commands")
    ends = sections["a container by the command line, end to end"]
    assert {
        "run --rm, booted",
        "run --rm, from a template",
        "run --rm, from the pool",
        "from a template / booted",
        "from the pool / booted",
        "run --rm, from a template: until the agent answers",
        "run --rm, from a template: creating the container",
        "run --rm, from the pool: running it to its end",
    } <= set(ends)
    assert all(row["median"] > 0 for row in ends.values())
    names = ["ps: processor time", "exec NAME true: processor time", "exec NAME true: end to end"]
    assert list(sections["commands on a running container"]) == names


@pytest.mark.root
@pytest.mark.interop
@needs("root", "ctr", "virtiofsd", "setpriv", "nsenter", "ip", "runc")
def test_our_shim(tmp_path: Path) -> None:
    sections = measured(tmp_path / "figures.json", "shim")
    times = {name: row["median"] for name, row in sections["ctr run --rm, to its end"].items()}
    assert 0 < times["runc"] < times["our shim, from a template"]
    assert times["our shim, booted"] > 0
    memory = sections["host memory of a container by our shim"]
    processes = ("QEMU", "the shim", "its helpers")
    assert set(memory) == {f"our shim, {kind}: {process}" for kind in ("booted", "from a template") for process in processes}
