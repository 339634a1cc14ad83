"""The Debian package: what is in it, and that it is what `install` installs."""

import subprocess
from pathlib import Path

import pytest

from innkeeper.node import package, packages
from tests.needs import needs
from tests.unit.node.guest import guest

pytestmark = needs("dpkg-deb", "module:pyroute2")


def test_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: path for name, path in packages.sources().items() if name.parts[0] == "innkeeper" and len(name.parts) == 2}
    monkeypatch.setattr(packages, "sources", lambda: few)
    made = package.make(guest(tmp_path), tmp_path / "out")
    assert made.name.startswith("innkeeper-shim_")
    root = tmp_path / "root"
    for option, folder in (("-x", root), ("-e", root / "DEBIAN")):
        subprocess.run(["dpkg-deb", option, made, folder], check=True)
    layout = package.LAYOUT
    expected = {*layout.copies(guest(tmp_path), few), *layout.texts({}), *layout.launchers(Path("/x")), layout.link[0]}
    found = {Path("/") / path.relative_to(root) for path in root.rglob("*") if path.is_symlink() or path.is_file()}
    assert {path for path in found if path.parts[1] != "DEBIAN"} == expected
    assert (root / layout.link[0].relative_to("/")).resolve() == root / layout.link[1].relative_to("/")
    assert (root / "DEBIAN/conffiles").read_text().split() == [str(path) for path in layout.texts({}) if path.parts[1] == "etc"]
    assert 'kernel = "/usr/lib/innkeeper/share/shim/vmlinux"' in (root / "etc/innkeeper/shim.toml").read_text()
    lines = subprocess.run(["dpkg-deb", "-c", made], capture_output=True, text=True, check=True).stdout.splitlines()
    assert all(" root/root " in line for line in lines)
