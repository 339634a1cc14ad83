"""What a node lacks: the order, and what of containerd's configuration is understood."""

import json
import os
from pathlib import Path

import pytest

from innkeeper import programs
from innkeeper.cli import shim
from innkeeper.kata.files import containerd_handlers
from innkeeper.node import check, files

ORDER = [
    *("processor", "kernel", "KVM", "vhost-vsock"),
    *("module tun", "module act_mirred", "module cls_u32", "module sch_ingress", "module overlay"),
    *("qemu-system-x86_64", "virtiofsd", "configuration", "pyroute2", "containerd"),
]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without any program."""
    monkeypatch.setattr(programs, "find", lambda name: None)


def test_a_bare_node(bare: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shim.check(tmp_path / "none.toml", tmp_path / "socket", json=True) == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found] == ORDER
    failed = {one["name"]: one for one in found if not one["works"]}
    assert failed["configuration"]["detail"] == f"{tmp_path}/none.toml: No such file or directory"
    assert "qemu-system-x86" in failed["qemu-system-x86_64"]["mend"]
    assert shim.check(tmp_path / "none.toml", tmp_path / "socket") == 1
    lines = capsys.readouterr().out.splitlines()
    mending = [line for line in lines if line[:1].isdigit()]
    assert [line.split(". ")[1].partition(":")[0].removesuffix(" (optional)") for line in mending] == [
        name for name in ORDER if name in failed
    ]


@pytest.mark.parametrize(("release", "works"), [("5.11.0-46-generic", False), ("5.12.0", True), ("6.1.0-40-amd64", True), ("4.18", False)])
def test_the_kernel(release: str, works: bool) -> None:
    assert check._kernel(release).works == works


def test_what_is_optional_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [check.Finding("a", True, ""), check.Finding("b", False, "", required=False)]
    monkeypatch.setattr(check, "examine", lambda *_: found)
    assert shim.check() == 0
    found.append(check.Finding("c", False, ""))
    assert shim.check() == 1


@pytest.mark.parametrize("version", [2, 3])
def test_handlers_of_containerd(version: int) -> None:
    text = files.handlers(version, Path("/etc/innkeeper/shim.toml"))
    assert [(one.name, one.works, one.required) for one in check._handlers(text)] == [
        ("handler innkeeper", True, True),
        *([("handler innkeeper-erofs", True, False)] if version == 3 else []),
    ]
    text = files.handlers(version, Path("/etc/innkeeper/shim.toml"), "vm")
    assert next((one.name, one.works) for one in check._handlers(text)) == ("handler vm", True)
    (of_kata,) = check._handlers(containerd_handlers({"innkeeper": Path("/opt/configuration.toml")}))
    assert (of_kata.works, of_kata.detail) == (False, "it is of io.containerd.kata.v2")
    (missing,) = check._handlers("version = 2")
    assert not missing.works and "containerd-version-2.toml" in missing.mend
    (broken,) = check._handlers("=")
    assert not broken.works and "config dump" in broken.detail


def test_modules() -> None:
    assert check.module_state("no_such_module") == ""
    loaded = next(iter(os.listdir("/sys/module")))
    assert check.module_state(loaded) == "loaded"
