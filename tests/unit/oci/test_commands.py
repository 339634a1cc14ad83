"""What the options of `update`, `events`, `exec` and `spec` do, without root: values in the cgroup's files, lines, documents."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.container.init.prepare import process_plan
from agent.container.spec.document import parse_process
from agent.errors import Refused
from agent.linux import lsm
from agent.oci import command_table
from agent.oci.arguments import parse
from agent.oci.command_table import Context
from agent.oci.commands import exec_
from agent.oci.commands.spec import template
from agent.oci.output import Log
from agent.oci.state_dir import StateDir
from tests.eventually import eventually
from tests.unit.oci.kept_container import KeptContainer, kept_container


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeptContainer]:
    with kept_container(tmp_path, monkeypatch) as container:
        yield container


# update


@pytest.mark.parametrize(
    ("words", "written"),
    [
        (("--blkio-weight", "500"), ["io.bfq.weight = default 500"]),
        (("--cpu-burst", "2000"), ["cpu.max.burst = 2000"]),
        (("--cpu-idle", "1"), ["cpu.idle = 1"]),
        (("--cpu-period", "50000"), ["cpu.max = max 50000"]),
        (("--cpu-quota", "20000"), ["cpu.max = 20000 100000"]),
        (("--cpu-quota=-1",), ["cpu.max = max 100000"]),
        (("--cpu-quota", "20000", "--cpu-period", "50000"), ["cpu.max = 20000 50000"]),
        (("--cpu-share", "512"), ["cpu.weight = 59"]),
        (("--cpuset-cpus", "0-1,3"), ["cpuset.cpus = 0-1,3"]),
        (("--cpuset-mems", "0"), ["cpuset.mems = 0"]),
        (("--memory", "1000000"), ["memory.max = 1000000"]),
        (("--memory", "1.5G"), ["memory.max = 1610612736"]),
        (("--memory", "64 kib"), ["memory.max = 65536"]),
        (("--memory=-1",), ["memory.swap.max = max", "memory.max = max"]),
        (("--memory", "1000000", "--memory-swap", "3000000"), ["memory.swap.max = 2000000", "memory.max = 1000000"]),
        (("--memory-swap", "-1"), ["memory.swap.max = max"]),
        (("--memory-reservation", "500000"), ["memory.low = 500000"]),
        (("--pids-limit", "7"), ["pids.max = 7"]),
        (("--pids-limit", "-1"), ["pids.max = max"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_update_writes(box: KeptContainer, words: tuple[str, ...], written: list[str]) -> None:
    assert box("update", *words) == 0
    assert box.written() == written


def test_update_of_half_of_a_pair_keeps_the_other_half(box: KeptContainer) -> None:
    """cgroup v2 has one file for quota and period, and the swap limit includes the memory limit."""
    box("update", "--cpu-quota", "20000", "--cpu-period", "50000", "--memory", "1000000", "--memory-swap", "3000000")
    box.written()
    for words, written in (
        (("--cpu-period", "40000"), ["cpu.max = 20000 40000"]),
        (("--cpu-quota", "10000"), ["cpu.max = 10000 40000"]),
        (("--memory", "2000000"), ["memory.swap.max = 1000000", "memory.max = 2000000"]),
        (("--memory-swap", "2000000"), ["memory.swap.max = 0", "memory.max = 2000000"]),
        (("--cpu-share", "512"), ["cpu.weight = 59"]),
        (("--memory=-1",), ["memory.swap.max = max", "memory.max = max"]),
        (("--cpu-quota=-1",), ["cpu.max = max 40000"]),
    ):
        box("update", *words)
        assert box.written() == written, words
    assert box.resources() == {"cpu": {"quota": -1, "period": 40000, "shares": 512}, "memory": {"limit": -1, "swap": -1}}
    with pytest.raises(Refused, match=r"memory\.swap: needs a memory limit"):
        box("update", "--memory-swap", "2000000")


def test_update_of_a_weight_without_the_scheduler_that_has_weights(box: KeptContainer) -> None:
    (box.cgroup / "io.bfq.weight").unlink()
    box("update", "--blkio-weight", "500")
    assert box.written() == ["io.weight = default 4950"]


@pytest.mark.parametrize(("option", "field"), [("--cpu-rt-period", "realtimePeriod"), ("--cpu-rt-runtime", "realtimeRuntime")])
def test_update_refuses_what_cgroup_v2_has_no_file_for(box: KeptContainer, option: str, field: str) -> None:
    with pytest.raises(Refused, match=rf"linux\.resources\.cpu\.{field}: cgroup v2 has no file for it"):
        box("update", option, "1000")
    assert (box.written(), box.resources()) == ([], {})


def test_update_with_a_document(box: KeptContainer, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"pids": {"limit": 9}, "cpu": {"shares": 1024}}))
    box("update", "--resources", str(tmp_path / "r.json"))
    assert box.written() == ["cpu.weight = 100", "pids.max = 9"]


# events


def test_events_print_each_out_of_memory_kill_and_no_old_one(box: KeptContainer, capsys: pytest.CaptureFixture[str]) -> None:
    """Two kills were counted before; three come while it runs, the last one with the end of the container."""
    memory, group = box.cgroup / "memory.events", box.cgroup / "cgroup.events"
    lines: list[dict[str, Any]] = []

    def kinds() -> list[str]:
        lines.extend(json.loads(line) for line in capsys.readouterr().out.splitlines())
        return [line["type"] for line in lines]

    def kernel() -> None:
        try:
            eventually(lambda: "stats" in kinds())
            memory.write_text("oom 4\noom_kill 4\n")
            eventually(lambda: kinds().count("oom") == 2)
            memory.write_text("oom 5\noom_kill 5\n")
            group.write_text("populated 0\nfrozen 0\n")
        finally:
            box.first.kill()

    memory.write_text("oom 2\noom_kill 2\n")
    other = threading.Thread(target=kernel)
    other.start()
    assert box("events", "--interval", "20ms") == 0
    other.join()
    assert kinds().count("oom") == 3
    assert [line for line in lines if line["type"] == "oom"] == [{"type": "oom", "id": "a"}] * 3
    assert all(line["data"]["memory"]["usage"]["usage"] == 4096 for line in lines if line["type"] == "stats")


def test_events_with_stats_print_one_line(box: KeptContainer, capsys: pytest.CaptureFixture[str]) -> None:
    (box.cgroup / "memory.events").write_text("oom 2\noom_kill 2\n")
    assert box("events", "--stats") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["type"] == "stats"


# exec


def executed(box: KeptContainer, *words: str) -> dict[str, Any]:
    """Return the document of a process that `exec` starts with these options."""
    with StateDir.open(box.root, "a") as state_dir:
        return exec_._document(parse([*words, "a", "true"], exec_.OPTIONS, interleaved=False), state_dir)


def test_exec_with_a_profile_of_apparmor(box: KeptContainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsm, "apparmor_active", lambda: True)
    monkeypatch.setattr(lsm, "apparmor_profiles", lambda: frozenset(("mine",)))
    monkeypatch.setattr(lsm, "apparmor_exec_attribute", lambda: "self/attr/apparmor/exec")
    plan = process_plan(parse_process(executed(box, "--apparmor", "mine")), -1, None)
    assert plan.labels == [("self/attr/apparmor/exec", b"exec mine")]
    with pytest.raises(Refused, match="'other' is not loaded"):
        parse_process(executed(box, "--apparmor=other"))
    assert "apparmorProfile" not in executed(box)


def test_exec_with_a_label_of_selinux(box: KeptContainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsm, "selinux_active", lambda: True)
    monkeypatch.setattr(lsm, "selinux_context_valid", lambda context: context == "u:r:t:s0")
    plan = process_plan(parse_process(executed(box, "--process-label", "u:r:t:s0")), -1, None)
    assert (plan.labels, plan.key_label) == ([("self/attr/exec", b"u:r:t:s0")], b"u:r:t:s0")
    with pytest.raises(Refused, match="no context of the loaded policy"):
        parse_process(executed(box, "--process-label", "other"))
    assert "selinuxLabel" not in executed(box)


# spec


def test_spec_writes_a_file_of_another_name(box: KeptContainer, tmp_path: Path) -> None:
    command = command_table.find("spec")
    words = ["--bundle", str(tmp_path), "--file", "other.json"]
    assert command.action(Context(box.root, Log()), parse(words, command.options)) == 0
    assert json.loads((tmp_path / "other.json").read_text()) == template(rootless=False)
    assert not (tmp_path / "config.json").exists()
