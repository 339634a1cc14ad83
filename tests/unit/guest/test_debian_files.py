"""What a guest's Debian packages bring along: names, alternatives, virtual packages, and what the base has."""

import subprocess
from typing import Any

import pytest

from innkeeper.guest.builder_scripts import debian_files

LISTED = """\
strace\t6\tamd64\t\t, libc6 (>= 2.38), libunwind8:any | libdw1t64\tii
libunwind8\t1\tamd64\t\t, liblzma5 [linux-any], mail-agent, base-files\tii
exim\t4\tall\tmail-agent (= 1), mta\t, debconf | debconf-2.0\tii
libc6\t2\tamd64\tlibc6-2.41\t, libgcc-s1\tii
liblzma5\t5\tamd64\t\t, \tii
base-files\t13\tamd64\tbase\t, \tii
gone\t1\tamd64\t\t, \trc
"""


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> debian_files.Packages:
    def run(argv: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess(argv, 0, LISTED, "")

    monkeypatch.setattr(subprocess, "run", run)
    return debian_files.Packages()


def test_the_closure_is_without_the_base(packages: debian_files.Packages) -> None:
    base = {"libc6", "base-files", "liblzma5"}
    assert packages.closure(["strace"], base) == ["exim", "libunwind8", "strace"]
    assert packages.closure(["base-files"], base) == ["base-files"], "what is named is copied even so"
    assert packages.closure(["strace"], set()) == ["base-files", "exim", "libc6", "liblzma5", "libunwind8", "strace"]
    assert packages.closure(["mta"], base) == ["exim"], "a virtual package"
    assert (packages.version("exim"), packages.architecture("exim")) == ("4", "all")
    assert "gone" not in packages.rows


@pytest.mark.parametrize(
    ("path", "place"), [("/lib/x", "/usr/lib/x"), ("/bin/a", "/usr/bin/a"), ("/usr/lib/x", "/usr/lib/x"), ("/libx", "/libx")]
)
def test_a_merged_usr(path: str, place: str) -> None:
    assert debian_files.merged(path) == place
