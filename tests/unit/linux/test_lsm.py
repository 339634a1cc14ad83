"""What the kernel's files say about its security modules."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.linux import lsm


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """securityfs, selinuxfs and the module's switch in a folder of the test's own."""
    monkeypatch.setattr(lsm, "SECURITYFS", str(tmp_path))
    monkeypatch.setattr(lsm, "SELINUXFS", str(tmp_path / "selinux"))
    monkeypatch.setattr(lsm, "APPARMOR_ENABLED", str(tmp_path / "enabled"))
    lsm.apparmor_active.cache_clear()
    yield tmp_path
    lsm.apparmor_active.cache_clear()


@pytest.mark.parametrize(("text", "active"), [("Y\n", True), ("N\n", False), ("", False)])
def test_whether_apparmor_is_active(files: Path, text: str, active: bool) -> None:
    (files / "enabled").write_text(text)
    assert lsm.apparmor_active() is active


def test_nothing_is_active_without_the_files() -> None:
    assert (lsm.apparmor_active(), lsm.apparmor_profiles(), lsm.selinux_active()) == (False, frozenset(), False)
    assert not lsm.selinux_context_valid("system_u:system_r:container_t:s0")


def test_the_names_of_profiles(files: Path) -> None:
    (files / "apparmor").mkdir()
    (files / "apparmor/profiles").write_text("innkeeper-default (enforce)\n/usr/bin/a (b) (complain)\nhat//^x (enforce)\n")
    assert lsm.apparmor_profiles() == {"innkeeper-default", "/usr/bin/a (b)", "hat//^x"}


def test_selinux_is_active_when_it_has_a_policy(files: Path) -> None:
    (files / "selinux/class").mkdir(parents=True)
    assert not lsm.selinux_active()
    (files / "selinux/class/file").mkdir()
    assert lsm.selinux_active()


def test_what_is_loaded_is_written_at_once(files: Path) -> None:
    (files / "apparmor").mkdir()
    (files / "apparmor/.replace").touch()
    lsm.load_apparmor(b"profile" * 1000)
    assert (files / "apparmor/.replace").read_bytes() == b"profile" * 1000
