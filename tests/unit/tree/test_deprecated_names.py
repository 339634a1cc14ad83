"""Names of modules that programs outside the tree use go on to mean the same, until NEWS says that they go."""

import importlib
from pathlib import Path

import pytest

from innkeeper import machine, vm
from innkeeper.engine import host

RENAMED = {"MachineSpec": "VmConfig"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("innkeeper.machine", "innkeeper.vm"),
        ("innkeeper.build", "innkeeper.guest"),
        ("innkeeper.cli.session", "innkeeper.engine.session"),
        ("innkeeper.image.plan", "innkeeper.image.run_plan"),
    ],
)
def test_the_old_name_means_the_new_module(old: str, new: str) -> None:
    before, now = importlib.import_module(old), importlib.import_module(new)
    assert before.__all__
    assert all(getattr(before, name) is getattr(now, RENAMED.get(name, name)) for name in before.__all__ if name != "Machine")


def test_the_old_machine_finds_the_programs_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path / "cache"))
    kernel = tmp_path / "kernel"
    kernel.touch()
    programs = vm.HostPrograms(qemu=Path("/qemu"), setpriv=Path("/setpriv"))
    asked = []

    def prepare(kernel: Path, **options: object) -> vm.HostPrograms:
        asked.append((kernel, options))
        return programs

    monkeypatch.setattr(host, "prepare", prepare)
    with machine.Machine(machine.MachineSpec(kernel=kernel, root=kernel, accel="tcg")) as old:
        assert isinstance(old, vm.VirtualMachine)
        assert old.host == programs
        assert old.spec is old.config
    assert asked == [(kernel, {"accelerator": "tcg", "shares": False, "machine_type": None})]
