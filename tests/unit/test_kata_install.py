"""The layout for Kata's shim: what is written, and that it is taken away exactly."""

import json
import tomllib
from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.kata import Plan, install, uninstall


@pytest.fixture
def artifacts(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "out"
    folder.mkdir()
    found = [folder / name for name in ("bzImage", "innkeeper.img", "manifest.json")]
    for path in found:
        path.write_text(path.name)
    return found


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan.of(tmp_path / "opt/innkeeper", Path("/usr/bin/qemu"), Path('/odd "place"/virtiofsd'))


def test_what_is_written(plan: Plan, artifacts: list[Path]) -> None:
    made = install(plan, artifacts)
    assert all(path.is_file() for path in made)
    shim = tomllib.loads(plan.configuration.read_text())
    hypervisor = shim["hypervisor"]["qemu"]
    assert Path(hypervisor["kernel"]).read_text() == "bzImage"
    assert Path(hypervisor["image"]).read_text() == "innkeeper.img"
    assert "initrd" not in hypervisor, "the shim refuses an image and an initrd together"
    assert hypervisor["path"] in hypervisor["valid_hypervisor_paths"]
    assert hypervisor["virtio_fs_daemon"] == '/odd "place"/virtiofsd'
    assert hypervisor["disable_image_nvdimm"] is True
    assert shim["runtime"]["disable_guest_seccomp"] is False
    handler = tomllib.loads((plan.prefix / "etc/containerd-innkeeper.toml").read_text())
    runtime = handler["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]["innkeeper"]
    assert runtime["options"]["ConfigPath"] == str(plan.configuration)


def test_exactly_that_is_taken_away(plan: Plan, artifacts: list[Path]) -> None:
    own = plan.prefix / "share/notes"
    install(plan, artifacts)
    own.write_text("the operator's")
    assert uninstall(plan.prefix) == []
    assert [path for path in plan.prefix.rglob("*") if path.is_file()] == [own]
    own.unlink()
    own.parent.rmdir()
    install(plan, artifacts)
    uninstall(plan.prefix)
    assert not plan.prefix.exists()


def test_what_the_operator_changed_stays(plan: Plan, artifacts: list[Path]) -> None:
    install(plan, artifacts)
    plan.configuration.write_text("mine")
    made = install(plan, artifacts)
    assert plan.configuration.read_text() == "mine"
    assert plan.configuration.with_name(f"{plan.configuration.name}.new") in made
    assert uninstall(plan.prefix) == [plan.configuration]
    assert [path for path in plan.prefix.rglob("*") if path.is_file()] == [plan.configuration]


def test_again_replaces_what_is_unchanged(plan: Plan, artifacts: list[Path]) -> None:
    install(plan, artifacts)
    artifacts[0].write_text("a newer kernel")
    install(plan, artifacts)
    assert (plan.prefix / "share/bzImage").read_text() == "a newer kernel"
    assert len(json.loads((plan.prefix / "installed.json").read_text())["files"]) == 7


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InnkeeperError, match="absolute paths"):
        Plan.of(Path("relative"))
    with pytest.raises(InnkeeperError, match="holds no installation"):
        uninstall(tmp_path)
