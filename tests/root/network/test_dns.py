"""The guest's own resolv.conf."""

from pathlib import Path

import pytest

from agent.errors import WrongState
from agent.network.dns import set_dns
from tests.forked import CLONE_NEWNS, forked

pytestmark = pytest.mark.root


def test_lines_are_bound_over_the_file(tmp_path: Path) -> None:
    def body() -> None:
        target = tmp_path / "resolv.conf"
        target.write_text("old")
        set_dns([" nameserver 1.1.1.1 ", "search x\n"], str(target), str(tmp_path / "run/resolv.conf"))
        assert target.read_text() == "nameserver 1.1.1.1\nsearch x"
        assert f" {target} " in Path("/proc/self/mountinfo").read_text()

    forked(body, unshare=CLONE_NEWNS)
    assert (tmp_path / "resolv.conf").read_text() == "old"


def test_nothing_to_do(tmp_path: Path) -> None:
    set_dns(["nameserver 1.1.1.1"], str(tmp_path / "missing"), str(tmp_path / "made"))
    set_dns([], str(tmp_path), str(tmp_path / "made"))
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WrongState, match="is a directory"):
        set_dns(["nameserver 1.1.1.1"], str(tmp_path), str(tmp_path / "made"))
