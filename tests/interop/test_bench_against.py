"""`bench --against`: two guests by turns under the shim, here ours beside itself. No time is compared with anything."""

import json
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from tempfile import mkdtemp

import pytest

from bench import measured_node
from bench.measured_node import MeasuredNode, repeats
from bench.node import Guest
from bench.recording import starts
from innkeeper.cli import main
from tests.eventually import eventually
from tests.interop.node import Node, groups, leftovers, remaining_leftovers
from tests.interop.running_node import running_node
from tests.interop.test_shim import pytestmark as pytestmark
from tests.vm.guest import artifacts

PAIRS = (
    "QEMU's start to the first answered Check",
    "QEMU's start to the sandbox (CreateSandbox answered)",
    "ctr run --rm, to its end",
    "ctr task exec, to its end",
    "PID 1's resident memory, a container running",
    "kernel (bzImage)",
    "disk image, room taken",
)
ROWS = (
    "root, compressed: ours",
    "kernel begins",
    "PID 1 starts",
    "PID 1 listens",
    "first Check answered",
)


def bench_leftovers() -> tuple[set[Path], set[Path], str]:
    """Folders, groups and processes of the bench's nodes."""
    processes = subprocess.run(["pgrep", "-af", "/run/inb-"], capture_output=True, text=True, check=False).stdout
    return set(Path("/run").glob("inb-*")), {group for group in groups() if "inb-" in group.name}, processes


def test_a_row_for_each_guest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, beside = bench_leftovers(), leftovers(Path("/run/inb"))
    figures, anchor = tmp_path / "figures.json", tmp_path / "anchor"
    anchor.mkdir()
    (anchor / "bzImage").symlink_to(artifacts().bzImage)
    (anchor / "image").symlink_to(artifacts().disk)
    assert main(["bench", "--only", "against", "--against", str(anchor), "--rounds", "1", "--json", str(figures)]) == 0
    rows = {row["name"]: row for section in json.loads(figures.read_text())["sections"] for row in section["figures"]}
    assert set(rows) == {*ROWS, *(f"{name}: {whose}" for name in PAIRS for whose in ("ours", "Kata's"))}
    assert all(row["median"] > 0 for row in rows.values())
    assert rows[f"{PAIRS[0]}: ours"]["samples"] == rows[f"{PAIRS[0]}: Kata's"]["samples"] == 2
    stages = [rows[name]["median"] for name in ROWS[2:]]
    assert stages == sorted(stages)
    assert "disk image, room taken: ours" in capsys.readouterr().out
    assert bench_leftovers() == before
    assert remaining_leftovers(Path("/run/inb"), beside) == set()


def test_a_round_that_stands_still_is_done_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said, with what the VM did: here a QEMU that was stopped. The second attempt counts."""
    before = bench_leftovers()
    monkeypatch.setattr(measured_node, "SECONDS", 40.0)
    attempts: list[int] = []

    def stop_the_first(node: MeasuredNode) -> None:
        """Stop the node's first QEMU as soon as it has been started."""
        started = eventually(lambda: starts((node.folder / "qemu.log").read_text()) if (node.folder / "qemu.log").exists() else {})
        os.kill(next(iter(started.values())).pid, signal.SIGSTOP)

    with MeasuredNode(Guest("ours", artifacts().bzImage, artifacts().disk, "erofs")) as node:

        def work() -> str:
            attempts.append(len(attempts))
            if attempts == [0]:
                threading.Thread(target=stop_the_first, args=(node,)).start()
            return node.run("--rm", "true")

        assert node.measure(work).startswith(node.folder.name)
        assert repeats([node]) == "; repeated because they stood still: 1 with ours"
    assert attempts == [0, 1]
    said = capsys.readouterr().err
    assert "ctr run with ours did not end within 40 s: its agent has not answered yet, and its QEMU uses 0% of a processor" in said
    assert bench_leftovers() == before


def test_a_node_outlives_the_one_that_was_there_first() -> None:
    """What nodes share of the machine, its syslog, is there until the last of them ends."""
    folder = Path(mkdtemp(prefix="ink-", dir="/run"))
    first = Node(folder)
    first.up()
    try:
        with running_node(Node) as second:
            first.down()
            assert second.run("after", "echo", "here").stdout == "here\n"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
