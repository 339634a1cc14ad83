"""`doctor`: three parts, and its lists of programs beside what the code of each part really asks for."""

import ast
import json
import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from innkeeper import programs
from innkeeper.cli import doctor, doctor_checks
from tests.command import PARTS
from tests.needs import OF_MARKER
from tests.paths import ROOT

RUN_CODE = ("innkeeper/engine", "innkeeper/image", "innkeeper/skopeo.py", "innkeeper/vm", "innkeeper/client")
"""What `run`, `exec` and the other subcommands about containers consist of."""


def calls(folders: Iterable[str], names: tuple[str, ...]) -> Iterator[ast.Call]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")) or [ROOT / folder]:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                    if called in names:
                        yield node


def words(call: ast.Call) -> set[str]:
    """The strings anywhere in the arguments: also those of a condition's two sides."""
    found = (node.value for argument in call.args for node in ast.walk(argument) if isinstance(node, ast.Constant))
    return {value for value in found if isinstance(value, str)}


def required(*folders: str) -> set[str]:
    """The programs that the code in `folders` requires."""
    found: set[str] = set()
    for call in calls(folders, ("require", "require_all")):
        asked = words(call)
        assert asked, f"{ast.unparse(call)}: a name that this test cannot read"
        found |= asked
    return found


def test_run_asks_for_what_doctor_says() -> None:
    sometimes = {"virtiofsd", "qemu-system-aarch64"}
    assert required(*RUN_CODE) - sometimes == set(doctor_checks.RUN)
    assert sometimes < doctor_checks.SOMETIMES.keys()


def test_build_asks_for_what_doctor_says() -> None:
    asked = required("innkeeper/guest") - {"mkfs.erofs", "openssl"}  # of `image diff` and --sign-key only
    assert "qemu-aarch64-static" in asked & doctor_checks.SOMETIMES.keys()
    asked -= {"qemu-aarch64-static"}
    assert asked - {*doctor_checks.BUILD_AS_USER} == set(doctor_checks.BUILD)
    assert asked <= {*doctor_checks.BUILD, *doctor_checks.BUILD_AS_USER}


def test_the_tests_ask_for_what_their_parts_say() -> None:
    lacking: dict[str, list[str]] = {}
    for folder, part in PARTS.items():
        asked: set[str] = set()
        for call in calls([folder], ("needs",)):
            asked |= words(call) & set(programs.REGISTRY)
        if part.guest:
            asked |= set(OF_MARKER["vm"]) & set(programs.REGISTRY)
        if missing := asked - {*part.programs, *doctor_checks.RUN, *doctor_checks.BUILD, *doctor_checks.ENVIRONMENT}:
            lacking[folder] = sorted(missing)
    assert lacking == {}, "programs that tests need and their part does not list"


def test_their_environment_asks_for_what_doctor_says() -> None:
    (call,) = calls_in(ROOT / "build.py", "require_all")
    assert words(call) == set(doctor_checks.ENVIRONMENT)


def calls_in(path: Path, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name:
            yield node


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """A host that has everything; what a test takes out of the set is not there. Its guest is built."""
    there = set(programs.REGISTRY)
    monkeypatch.setattr(programs, "find", lambda name: Path(f"/usr/bin/{name}") if name in there else None)
    monkeypatch.setattr(doctor_checks, "_version", str)
    monkeypatch.setattr(doctor_checks, "_kvm", lambda: {"works": False, "detail": ""})
    monkeypatch.setattr(doctor_checks, "_user_namespaces", lambda: {"works": True, "detail": ""})
    monkeypatch.setattr(doctor_checks, "built", lambda: True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    return there


def ready(report: dict[str, Any]) -> list[str]:
    return [name for name, part in report["parts"].items() if part["ready"]]


@pytest.mark.parametrize(
    ("missing", "is_built", "parts"),
    [
        ((), True, ["run", "build", "test"]),
        (("mkfs.erofs", "redis-server", "go"), True, ["run", "build"]),
        (("mmdebstrap",), True, ["run"]),
        (("mmdebstrap",), False, []),
        (("virtiofsd",), True, ["run", "build"]),
        (("qemu-system-x86_64",), True, ["build"]),
        (("mke2fs",), True, ["build"]),
    ],
)
def test_three_parts(host: set[str], monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], is_built: bool, parts: list[str]) -> None:
    host.difference_update(missing)
    monkeypatch.setattr(doctor_checks, "built", lambda: is_built)
    report = doctor_checks.examine(ask_guest=False)
    assert ready(report) == parts
    assert report["ready"] is ("run" in parts)
    for part in report["parts"].values():
        assert bool(part["command"]) is bool(part["missing"])
        for name in part["missing"]:
            program = programs.REGISTRY[name]
            assert any(package in part["command"] for package in (*program.packages, *program.alternatives))
    assert ("virtiofsd" in report["parts"]["run"]["optional"]) is ("virtiofsd" in missing)


def test_what_no_package_cures(host: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(doctor_checks, "_user_namespaces", lambda: {"works": False, "detail": ""})
    report = doctor_checks.examine(ask_guest=False)
    assert ready(report) == ["run"]
    assert "user namespaces" in report["parts"]["build"]["reasons"][0]
    assert "not root" in report["parts"]["test"]["reasons"][0]
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert ready(doctor_checks.examine(ask_guest=False)) == []


@pytest.mark.parametrize("as_json", [False, True])
def test_exit_status_is_that_of_running(host: set[str], capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    host -= {"mkfs.erofs", "redis-server", "mmdebstrap"}
    assert doctor.doctor(guest=False, json=as_json) == 0
    printed = capsys.readouterr().out
    if as_json:
        assert json.loads(printed)["parts"]["build"]["missing"] == ["mmdebstrap"]
    else:
        assert "run a container: ready" in printed
        assert "build a guest: not ready\n  missing: mmdebstrap\n  to get it: apt-get install" in printed
        assert "run the tests: not ready" in printed
    host.discard("skopeo")
    assert doctor.doctor(guest=False, json=as_json) == 1


@pytest.mark.parametrize(
    ("kernel", "note"),
    [
        (None, "the first `build.py run` builds the guest's root and takes a kernel ready-made from Debian (about 2 minutes)"),
        (Path("vmlinux"), "the next `build.py run` first builds what the store lacks of this version's guest (up to 2 minutes)"),
    ],
)
def test_a_first_run_that_builds_is_announced(
    host: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kernel: Path | None, note: str
) -> None:
    monkeypatch.setattr(doctor_checks, "_built_kernel", lambda: kernel)
    doctor.doctor()
    assert note not in capsys.readouterr().out, "the guest is built"
    monkeypatch.setattr(doctor_checks, "built", lambda: False)
    assert doctor.doctor() == 0
    assert f"run a container: ready\n  {note}\n" in capsys.readouterr().out
    assert doctor_checks.examine(ask_guest=False)["parts"]["run"]["notes"] == [note]
    monkeypatch.setattr(doctor_checks, "_guest", lambda: {"agent": "1"})
    doctor.doctor(guest=True)
    assert note not in capsys.readouterr().out, "it was built now"
    host.discard("mmdebstrap")
    doctor.doctor()
    assert note not in capsys.readouterr().out, "it could not"


def test_looking_makes_and_installs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(names: object) -> None:
        raise AssertionError(f"doctor would install {names}")

    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(programs, "_install", refuse)
    monkeypatch.setattr(doctor_checks, "_kvm", lambda: {"works": False, "detail": ""})
    assert doctor_checks.built() is False
    doctor_checks.examine(ask_guest=False)
    assert not (tmp_path / "cache" / "store").exists()
