"""How urgent a newer package is, by the changelog in it."""

import gzip
import subprocess
from pathlib import Path

import pytest

from innkeeper.guest import changelog

TEXT = """zlib (1:1.3-3) trixie-security; urgency=high

  * Fix an overflow.

 -- A <a@b>  Mon, 01 Jan 2024 00:00:00 +0000

zlib (1:1.3-2) unstable; urgency=medium

  * More.

 -- A <a@b>  Mon, 01 Jan 2024 00:00:00 +0000

zlib (1:1.3-1) unstable; urgency=critical
"""


def package(folder: Path, documents: dict[str, str]) -> Path:
    root = folder / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text("Package: zlib1g\nVersion: 1:1.3-3\nArchitecture: all\nMaintainer: a\nDescription: a\n")
    for name, text in documents.items():
        file = root / "usr" / "share" / "doc" / "zlib1g" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(text.encode()))
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, folder / "a.deb"], check=True, capture_output=True)
    return folder / "a.deb"


@pytest.mark.parametrize(
    ("old", "found"),
    [("1:1.3-2+b1", "high"), ("1:1.3-1", "high"), ("1:1.2", "critical"), ("1:1.3-3", changelog.UNKNOWN), ("2:1", changelog.UNKNOWN)],
)
def test_the_greatest_urgency_since_the_old_version_counts(tmp_path: Path, old: str, found: str) -> None:
    archive = package(tmp_path, {"changelog.gz": "Changes of the authors", "changelog.Debian.gz": TEXT})
    assert changelog.urgency(archive, "zlib1g", old) == found


def test_a_native_package_has_one_changelog_and_others_may_have_none(tmp_path: Path) -> None:
    assert changelog.urgency(package(tmp_path, {"changelog.gz": TEXT}), "zlib1g", "1:1.3-2") == "high"
    assert changelog.urgency(tmp_path / "a.deb", "zlib1g-dev", "1:1.3-2") == changelog.UNKNOWN
    (tmp_path / "a.deb").write_text("no package")
    assert changelog.urgency(tmp_path / "a.deb", "zlib1g", "1:1.3-2") == changelog.UNKNOWN
