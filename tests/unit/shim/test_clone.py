"""Which VMs of the shim start from a template."""

from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper import paths
from innkeeper.client import RpcError
from innkeeper.errors import InnkeeperError
from innkeeper.shim import clone
from innkeeper.shim.settings import Settings
from innkeeper.shim.spec import Size
from innkeeper.shim.vm_config import configuration
from innkeeper.vm import CloneableVm, Share, Tap, VmConfig
from innkeeper.wire import status


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("kernel", "root"):
        (tmp_path / name).write_text(name)
    monkeypatch.setenv(paths.TEMPLATES_VARIABLE, "")
    (tmp_path / "templates").mkdir()
    return Settings(kernel=tmp_path / "kernel", root=tmp_path / "root", accelerator="tcg", templates=tmp_path / "templates")


def config_of(settings: Settings, taps: int = 0, size: Size | None = None) -> VmConfig:
    cards = tuple(Tap(fd=9 + index, mac=f"02:00:00:00:00:0{index}", namespace=Path("/proc/self/ns/net")) for index in range(taps))
    share = Share.of("shared", settings.root.parent)
    return replace(configuration(settings, size or Size()), network=cards or False, shares=(share,))


def asked_for(settings: Settings, config: VmConfig, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the keys of the templates that a start looks for."""
    keys: list[str] = []

    def load(vm: CloneableVm, key: str) -> None:
        keys.append(key)

    monkeypatch.setattr("innkeeper.engine.clones.load", load)
    assert clone.start(config, settings, settings.root.parent) is None
    return keys


def test_a_card_or_none_takes_the_same_template(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    without = asked_for(settings, config_of(settings), monkeypatch)
    assert len(without) == 1
    assert asked_for(settings, config_of(settings, taps=1), monkeypatch) == without
    assert paths.templates_root() == settings.templates


def test_another_size_takes_another(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not rounded: the control group of the VM has a limit that goes by its memory."""
    without = asked_for(settings, config_of(settings), monkeypatch)
    assert asked_for(settings, config_of(settings, size=Size(memory=300 << 20)), monkeypatch) != without


def test_two_cards_boot(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_for(settings, config_of(settings, taps=2), monkeypatch) == []


def test_without_any_template_nothing_is_looked_for(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.templates.rmdir()
    assert asked_for(settings, config_of(settings), monkeypatch) == []


@pytest.mark.parametrize(
    "error",
    [
        InnkeeperError("generation of the clone: 1 in place of 2"),
        RpcError(status.UNAVAILABLE, "gone", lost=True),
        ConnectionResetError("reset"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_of_a_clone_fails_the_vm_boots_and_the_log_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """`clones.load` has ended it by then (tests/unit/engine/test_clones.py)."""
    said: list[str] = []

    def load(vm: CloneableVm, key: str) -> None:
        raise error

    monkeypatch.setattr("innkeeper.engine.clones.load", load)
    monkeypatch.setattr("innkeeper.shim.log.error", said.append)
    assert clone.start(config_of(settings), settings, settings.root.parent) is None
    assert said == [f"the guest's template cannot be used, booting instead: {error}"]
