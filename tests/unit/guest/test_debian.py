"""Where Debian comes from, and what is known of what was installed."""

import json
from pathlib import Path

import pytest

from innkeeper.guest.debian import package_list
from innkeeper.guest.mirror import host_mirrors

KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQINBF\n-----END PGP PUBLIC KEY BLOCK-----"

ONE_LINE = """
# deb http://commented.invalid/debian bookworm main
deb-src http://source.invalid/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/d.gpg] http://a.invalid/debian/ bookworm main contrib # here
deb http://security.invalid/debian-security bookworm-security main
deb http://later.invalid/debian bookworm main
"""
DEB822 = f"""
Types: deb
URIs: http://off.invalid/debian
Suites: bookworm
Components: main
Enabled: no

# comment
Types: deb deb-src
URIs: http://a.invalid/debian http://second.invalid/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
{chr(10).join(" " + (line or ".") for line in KEY.splitlines())}
"""


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def test_one_line_entries(apt: Path) -> None:
    (apt / "sources.list").write_text(ONE_LINE)
    main, security = host_mirrors(apt)
    assert (main.uri, main.signed_by, main.security) == ("http://a.invalid/debian", "/usr/share/keyrings/d.gpg", False)
    assert (security.uri, security.security) == ("http://security.invalid/debian-security", True)
    assert main.sources_line("trixie", "/k.gpg") == "deb [signed-by=/k.gpg] http://a.invalid/debian trixie main"
    assert security.sources_line("trixie-security", "") == "deb http://security.invalid/debian-security trixie-security main"


def test_stanzas(apt: Path) -> None:
    (apt / "sources.list.d/debian.sources").write_text(DEB822)
    (main,) = host_mirrors(apt)
    assert (main.uri, main.signed_by) == ("http://a.invalid/debian", KEY)


@pytest.mark.parametrize(
    "line",
    [
        "deb http://archive.invalid/ubuntu noble main",
        "deb http://other.invalid/repository stable contrib",
        "deb http://other.invalid/docker bookworm stable",
        "deb file:/srv/mirror bookworm main",
        "deb cdrom:[Debian]/ bookworm main",
        "nonsense",
    ],
)
def test_what_is_not_debian_over_the_network_does_not_count(apt: Path, line: str) -> None:
    (apt / "sources.list").write_text(line + "\n")
    assert host_mirrors(apt) == []


def test_no_configuration_at_all(tmp_path: Path) -> None:
    assert host_mirrors(tmp_path / "none") == []


def test_the_list_of_packages_has_hashes_where_they_are_told() -> None:
    listed = """ii |zlib1g|1:1.3-1|amd64
ii |base-files|13|amd64
--
Package: zlib1g
Version: 1:1.3-1
SHA256: aaaa
Package: zlib1g
Version: 1:1.2-9
SHA256: bbbb
"""
    assert json.loads(package_list(listed)) == [
        {"name": "base-files", "version": "13", "architecture": "amd64"},
        {"name": "zlib1g", "version": "1:1.3-1", "architecture": "amd64", "sha256": "aaaa"},
    ]
