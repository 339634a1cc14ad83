"""Where Debian comes from, and what is known of what was installed."""

from pathlib import Path

import pytest

from innkeeper import programs
from innkeeper.errors import InnkeeperError
from innkeeper.guest import debian, mirror
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


def test_the_list_of_installed_packages() -> None:
    assert debian.installed("ii |zlib1g|1:1.3-1|amd64\nii |base-files|13|amd64\n") == {
        ("base-files", "13", "amd64"),
        ("zlib1g", "1:1.3-1", "amd64"),
    }


def test_where_a_package_may_be(apt: Path) -> None:
    """A security update gets to the main archive with the next point release."""
    (apt / "sources.list").write_text(ONE_LINE)
    assert mirror.locations("pool/main/b/b/b_1+b2_amd64.deb", apt) == ["http://a.invalid/debian/pool/main/b/b/b_1+b2_amd64.deb"]
    assert mirror.locations("pool/updates/main/b/b/b_1.deb", apt) == [
        "http://security.invalid/debian-security/pool/updates/main/b/b/b_1.deb",
        "http://a.invalid/debian/pool/main/b/b/b_1.deb",
    ]


def test_without_a_mirror_in_apts_configuration_mmdebstraps_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "mmdebstrap"
    program.write_text("'deb http://a.invalid/debian $suite'\n'http://s.invalid/debian-security'\n'http://b.invalid/debian'\n")
    monkeypatch.setattr(programs, "require", lambda name: str(program))
    assert [(one.uri, one.security) for one in mirror.usable_mirrors(tmp_path)] == [
        ("http://a.invalid/debian", False),
        ("http://s.invalid/debian-security", True),
    ]
    program.write_text("")
    with pytest.raises(InnkeeperError, match="neither apt's configuration nor mmdebstrap names a mirror"):
        mirror.usable_mirrors(tmp_path)
