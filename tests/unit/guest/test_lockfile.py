"""A lock file: written from a manifest, and compared with the one of another build."""

import json
from pathlib import Path
from typing import Any

import pytest

from innkeeper.cli import build
from innkeeper.errors import InnkeeperError
from innkeeper.guest import lockfile


def manifest(folder: Path, **changes: Any) -> Path:
    """A manifest with one package of each kind; `version` and `root` may differ."""
    debian = {"type": "debian", "name": "zlib1g", "version": changes.get("version", "1:1"), "architecture": "amd64", "builders": ["agent"]}
    document = {
        "inputs": [{**debian, "sha256": "a" * 64}, {"type": "python", "name": "protobuf", "version": "7", "sha256": ["b" * 64]}],
        "outputs": {"bzImage": {"size": 1, "sha256": "c" * 64}, "rootfs.erofs": {"size": 1, "sha256": changes.get("root", "d") * 64}},
        "verity": {"root_hash": "e" * 64},
    }
    path = folder / "manifest.json"
    path.write_text(json.dumps(document))
    return path


def test_the_same_build_is_that_of_its_lock_file(tmp_path: Path) -> None:
    lock = tmp_path / "guest.lock"
    lockfile.write(manifest(tmp_path), lock)
    assert lockfile.compare(manifest(tmp_path), lock) == []
    assert (
        lock.read_text()
        == f"""{lockfile.HEAD}
version = 1

[golden]
"rootfs.erofs" = "{"d" * 64}"
"bzImage" = "{"c" * 64}"
"root_hash" = "{"e" * 64}"

[debian."zlib1g 1:1 amd64"]
sha256 = "{"a" * 64}"
builders = ["agent"]

[python."protobuf 7"]
sha256 = ["{"b" * 64}"]
"""
    )


def test_another_build_is_told_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "guest.lock"
    with pytest.raises(InnkeeperError, match="no such lock file"):
        build._compare(manifest(tmp_path), lock, refresh=False)
    build._compare(manifest(tmp_path), lock, refresh=True)
    build._compare(manifest(tmp_path), lock, refresh=False)
    with pytest.raises(InnkeeperError) as caught:
        build._compare(manifest(tmp_path, version="2", root="f"), lock, refresh=False)
    changes = [
        "debian: zlib1g 2 amd64 is not in the lock file",
        "debian: zlib1g 1:1 amd64 is in the lock file only",
        f"golden: rootfs.erofs differs: {'d' * 16} in the lock file, {'f' * 16} now",
    ]
    assert caught.value.message.split("\n  ")[1:] == changes
    build._compare(manifest(tmp_path, version="2", root="f"), lock, refresh=True)
    assert capsys.readouterr().err.splitlines() == changes
    build._compare(manifest(tmp_path, version="2", root="f"), lock, refresh=False)


@pytest.mark.parametrize(("text", "message"), [("version = 2", "version 2, this program knows 1"), ("x", "guest.lock: ")])
def test_a_file_that_is_no_lock_file(tmp_path: Path, text: str, message: str) -> None:
    lock = tmp_path / "guest.lock"
    lock.write_text(text)
    with pytest.raises(InnkeeperError, match=message):
        lockfile.compare(manifest(tmp_path), lock)
