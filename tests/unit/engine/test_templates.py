"""Which VMs may start from a template, and as what."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from innkeeper.engine import clones, resolve, templates
from innkeeper.engine.resolve import ResolvedRun, RunRequest
from innkeeper.errors import InnkeeperError
from innkeeper.image import RunOptions
from innkeeper.vm import Share, SharedPath, VmConfig
from innkeeper.vm.registry import Entry


@pytest.fixture
def config(tmp_path: Path) -> VmConfig:
    for name in ("kernel", "root"):
        (tmp_path / name).write_text(name)
    return VmConfig(kernel=tmp_path / "kernel", root=tmp_path / "root", memory_mib=2048, machine_type="microvm")


def request(**fields: Any) -> RunRequest:
    return RunRequest(reference="image", **fields)


def resolved(start: str) -> ResolvedRun:
    return cast(ResolvedRun, SimpleNamespace(request=request(start=start), host=None))


@pytest.mark.parametrize(("asked", "given"), [(512, 512), (513, 1024), (2048, 2048), (5000, 8192), (16384, 16384)])
def test_memory_is_that_of_the_next_class(config: VmConfig, asked: int, given: int) -> None:
    clone = templates.configuration(request(), replace(config, memory_mib=asked))
    assert clone is not None
    assert (clone.memory_mib, clone.machine_type, clone.cloneable) == (given, "q35", True)


def test_other_memory_boots(config: VmConfig) -> None:
    assert templates.configuration(request(), replace(config, memory_mib=16385)) is None
    assert templates.configuration(request(vm_memory=700 << 20), replace(config, memory_mib=700)) is None
    exact = templates.configuration(request(vm_memory=1 << 30), replace(config, memory_mib=1024))
    assert exact is not None
    assert exact.memory_mib == 1024


def test_more_shares_than_slots_boot(config: VmConfig, tmp_path: Path) -> None:
    shares = tuple(Share(f"volume{index}", (SharedPath("", tmp_path),)) for index in range(9))
    assert templates.configuration(request(), replace(config, shares=shares[:8])) is not None
    assert templates.configuration(request(), replace(config, shares=shares)) is None


def test_a_template_that_is_asked_for_and_impossible_is_an_error(config: VmConfig) -> None:
    many = replace(config, memory_mib=20000)
    assert templates.start(resolved("cold"), config, cast(Entry, None)) is None
    assert templates.start(resolved("auto"), many, cast(Entry, None)) is None
    with pytest.raises(InnkeeperError, match="--start template: no templates are made for such a VM"):
        templates.start(resolved("template"), many, cast(Entry, None))
    with pytest.raises(InnkeeperError, match="--start pool: no templates are made for such a VM"):
        templates.start(resolved("pool"), many, cast(Entry, None))


def test_hardware_addresses_are_of_qemus_range_and_differ() -> None:
    found = {clones.hardware_address() for _ in range(20)}
    assert len(found) > 15
    assert all(address.startswith("52:54:00:") and len(address) == 17 for address in found)


def test_a_wrong_word_in_the_environment_is_refused_with_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNKEEPER_VM_START", "warm")
    with pytest.raises(InnkeeperError, match=r"^INNKEEPER_VM_START warm: no such way to start"):
        resolve.resolve_run(RunRequest(reference="image"), RunOptions())
