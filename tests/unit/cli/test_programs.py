"""Host programs are found, or named with the reason and the command; nothing is installed by these tests."""

import os
from pathlib import Path

import pytest

from innkeeper import programs
from innkeeper.errors import InnkeeperError


@pytest.fixture(autouse=True)
def nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(programs.NO_INSTALL_ENV, "1")


def test_a_program_on_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "skopeo"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert programs.require("skopeo") == program


def test_a_place_outside_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "odd"
    place.touch()
    monkeypatch.setitem(programs.REGISTRY, "odd-program", programs.Program(("odd",), "is odd", paths=(str(place),)))
    assert programs.find("odd-program") == place


def test_what_is_missing_is_named_with_reason_and_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(programs.REGISTRY, "absent-one", programs.Program(("package-one",), "does one thing"))
    monkeypatch.setitem(programs.REGISTRY, "absent-two", programs.Program(("package-two", "package-one"), "does another"))
    with pytest.raises(InnkeeperError, match="absent-one does one thing; absent-two does another") as caught:
        programs.require_all(["absent-one", "absent-two"])
    command = "apt-get install -y --no-install-recommends package-one package-two"
    assert caught.value.hint is not None and caught.value.hint.endswith(command)


def test_an_unknown_program_says_so() -> None:
    with pytest.raises(InnkeeperError, match="no package is known that has it"):
        programs.require("no-such-program-anywhere")


def test_the_guard_keeps_services_from_starting_and_goes(tmp_path: Path) -> None:
    """The shell text that wraps an installation, with its guard file elsewhere."""
    import subprocess

    guard = tmp_path / "policy-rc.d"
    text = programs._GUARDED.replace("/usr/sbin/policy-rc.d", str(guard))
    seen = subprocess.run(["sh", "-c", text, "sh", "sh", "-c", f"{guard}; exit $?"], check=False).returncode
    assert (seen, guard.exists()) == (101, False)
    guard.write_text("#!/bin/sh\nexit 0\n")
    guard.chmod(0o755)
    assert subprocess.run(["sh", "-c", text, "sh", str(guard)], check=False).returncode == 0
    assert guard.exists(), "a policy of the host's own stays"


def test_every_program_says_why() -> None:
    for name, program in programs.REGISTRY.items():
        assert program.packages and program.why and not program.why.endswith("."), name
        assert all(os.path.isabs(place) for place in program.paths), name
