"""The lock file: written from pins and a manifest, read again, and compared with another build."""

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from innkeeper.cli import build
from innkeeper.errors import InnkeeperError
from innkeeper.guest import lockfile, pins
from innkeeper.guest.config import Guest, RootPart
from innkeeper.guest.kernel import CROSS_SOURCES
from innkeeper.guest.pins import Package, Pins, Request
from tests.paths import ROOT

LIBRARY = Package("zlib1g", "1:1", "amd64", "a" * 64, 10, "pool/main/z/zlib/zlib1g_1_amd64.deb")
NEWER = Package("zlib1g", "1:2", "amd64", "f" * 64, 11, "pool/updates/main/z/zlib/zlib1g_2_amd64.deb")
BASE = Request("trixie")


def known(*packages: Package) -> Pins:
    return Pins({BASE.key: list(packages)})


def manifest(folder: Path, package: Package = LIBRARY, root: str = "d", more: Mapping[str, Any] | None = None) -> Path:
    """A manifest with one package of each kind."""
    inputs = [
        {"type": "debian", **package.listed(), "builders": ["agent"]},
        {"type": "python", "name": "protobuf", "version": "7", "sha256": ["b" * 64]},
    ]
    outputs = {"rootfs.erofs": {"size": 1, "sha256": root * 64}, **(more or {})}
    path = folder / "manifest.json"
    path.write_text(json.dumps({"inputs": inputs, "outputs": outputs, "verity": {"root_hash": "e" * 64}}))
    return path


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    lock = tmp_path / "guest.lock"
    lockfile.write(lock, known(LIBRARY), manifest(tmp_path))
    read = Pins.read(lock)
    assert (read.of(BASE), read.of(Request("trixie", ("gcc",))), read.file) == ((LIBRARY,), None, lock)
    line = f'"zlib1g 1:1 amd64": {{"sha256": "{"a" * 64}", "size": 10, "path": "{LIBRARY.path}"}}'
    assert line in [text.strip() for text in lock.read_text().splitlines()], "a package is one line"
    assert json.loads(lock.read_text())["architectures"][platform.machine()]["golden"] == {
        "rootfs.erofs": "d" * 64,
        "root_hash": "e" * 64,
    }
    assert lockfile.compare(manifest(tmp_path), lock) == []


def test_another_build_is_told_by_name(tmp_path: Path) -> None:
    lock = tmp_path / "guest.lock"
    lockfile.write(lock, known(LIBRARY), manifest(tmp_path))
    assert lockfile.compare(manifest(tmp_path, NEWER, "f"), lock) == [
        "debian: zlib1g 1:2 amd64 is not in the lock file",
        f"golden: rootfs.erofs differs: {'d' * 16} in the lock file, {'f' * 16} now",
    ]


def test_hashes_of_results_that_were_not_built_stay_with_the_same_packages_only(tmp_path: Path) -> None:
    lock = tmp_path / "guest.lock"
    kernel = {"bzImage": {"size": 1, "sha256": "c" * 64}}
    lockfile.write(lock, known(LIBRARY), manifest(tmp_path, more=kernel))
    lockfile.write(lock, known(LIBRARY), manifest(tmp_path, root="1"))
    golden = json.loads(lock.read_text())["architectures"][platform.machine()]["golden"]
    assert golden == {"rootfs.erofs": "1" * 64, "bzImage": "c" * 64, "root_hash": "e" * 64}
    lockfile.write(lock, known(NEWER), manifest(tmp_path, NEWER))
    assert "bzImage" not in json.loads(lock.read_text())["architectures"][platform.machine()]["golden"]


def test_the_part_of_another_architecture_stays(tmp_path: Path) -> None:
    lock = tmp_path / "guest.lock"
    packages = {"a 1 arm64": {"sha256": "a" * 64, "size": 1, "path": "pool/main/a/a.deb"}}
    other = {"golden": {"Image": "1" * 64}, "builders": {"trixie": ["a 1 arm64"]}, "packages": packages}
    lock.write_text(json.dumps({"version": pins.VERSION, "architectures": {"other": other}}))
    pinned = Pins.read(lock)
    foreign = pinned.of(Request("trixie", architecture="other"))
    assert foreign is not None and [one.key for one in foreign] == ["a 1 arm64"] and pinned.of(Request("trixie")) is None
    for builders in (known(LIBRARY).builders, {**known(LIBRARY).builders, **pinned.builders}):
        lockfile.write(lock, Pins(builders), manifest(tmp_path))
        assert json.loads(lock.read_text())["architectures"]["other"] == other


def test_hashes_of_another_architecture_are_in_its_part(tmp_path: Path) -> None:
    lock = tmp_path / "guest.lock"
    lockfile.write(lock, known(LIBRARY), manifest(tmp_path))
    document = json.loads(manifest(tmp_path).read_text())
    cross = tmp_path / "cross.json"
    outputs = {name: {"size": 1, "sha256": "9" * 64} for name in ("vmlinux", "Image", "config")}
    debian = [entry for entry in document["inputs"] if entry["type"] == "debian"]
    cross.write_text(json.dumps({"inputs": debian, "outputs": outputs, "architecture": "other"}))
    assert lockfile.compare(cross, lock) == [
        f"golden: {name} differs: none in the lock file, {'9' * 16} now" for name in ("vmlinux", "Image")
    ]
    lockfile.write(lock, known(LIBRARY), cross)
    assert lockfile.compare(cross, lock) == lockfile.compare(manifest(tmp_path), lock) == []
    assert "vmlinux" not in json.loads(lock.read_text())["architectures"][platform.machine()]["golden"]


def test_new_versions_are_told_with_the_old_ones() -> None:
    other = Package("gone", "1", "all", "a" * 64, 1, "pool/main/g/gone.deb")
    assert lockfile.package_changes(known(LIBRARY, other), known(NEWER)) == [
        "debian: gone 1 is gone",
        "debian: zlib1g 1:1 -> 1:2 (security update)",
    ]
    assert lockfile.package_changes(Pins(), known(LIBRARY)) == ["debian: zlib1g new: 1:1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 1}', "version 1 of the format, this program knows 2"),
        ("x", "guest.lock: not a lock file: Expecting"),
        ("[]", "version None of the format"),
        (
            json.dumps({"version": 2, "architectures": {platform.machine(): {"builders": {"trixie": ["a 1 all"]}}}}),
            "not a lock file: 'a 1 all'",
        ),
    ],
)
def test_a_file_that_is_no_lock_file(tmp_path: Path, text: str, message: str) -> None:
    lock = tmp_path / "guest.lock"
    lock.write_text(text)
    with pytest.raises(InnkeeperError, match=message):
        Pins.read(lock)


def test_the_lock_file_of_a_guest_is_beside_it(tmp_path: Path) -> None:
    guest = tmp_path / "guest.toml"
    assert pins.file_of([guest]) == pins.file_of([]) == ROOT / "guest.lock"
    assert pins.file_of([guest], new=True) == tmp_path / "guest.lock"
    (tmp_path / "guest.lock").touch()
    assert pins.file_of([guest]) == tmp_path / "guest.lock"


def test_the_lock_of_the_tree_has_every_builder_and_the_hashes_of_every_result() -> None:
    tree = Pins.read(ROOT / "guest.lock")
    assert {request.key for request in lockfile.requests(lockfile.examples(), list(CROSS_SOURCES))} == set(tree.builders), (
        "run: build --refresh"
    )
    golden = pins.document(ROOT / "guest.lock")["architectures"]["x86_64"]["golden"]
    assert set(golden) == {*lockfile.GOLDEN, "root_hash"}
    assert "://" not in (ROOT / "guest.lock").read_text(), "it names no mirror"


def test_packages_of_a_guest_toml_are_a_request_of_their_own() -> None:
    (more,) = set(lockfile.requests([Guest(root=RootPart(packages=("strace", "jq")))])) - set(lockfile.requests([]))
    assert (more.packages, more.suite, "python3" in more.on) == (("jq", "strace"), "trixie", True)
    assert Pins.read(ROOT / "guest.lock").of(more) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"golden": True, "refresh": True}, "--refresh and --golden cannot be used together"),
        ({"golden": True}, "--golden: .*absent.lock has no packages"),
        ({}, "absent.lock: no such lock file"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: dict[str, bool], message: str) -> None:
    with pytest.raises(InnkeeperError, match=message):
        build.build(output=tmp_path / "out", lock=tmp_path / "absent.lock", **options)
