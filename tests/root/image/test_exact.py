"""The device of a multi-layer image holds exactly what buildah mounts of the same image."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from innkeeper.image import Image, resolve
from tests.needs import needs
from tests.paths import ROOT

pytestmark = [pytest.mark.root, needs("buildah", "skopeo", "loop")]


def run(*command: str | Path) -> dict[str, dict[str, Any]]:
    """Run a program of ours in a mount namespace of its own, and read the JSON it prints."""
    done = subprocess.run(["unshare", "--mount", *map(str, command)], check=True, stdout=subprocess.PIPE, cwd=ROOT)
    result: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return result


def scan_device(device: Path, place: Path) -> dict[str, dict[str, Any]]:
    place.mkdir(exist_ok=True)
    script = f'mount -t erofs -o loop,ro "$1" "$2" && exec {sys.executable} "$3" "$2"'
    return run("sh", "-c", script, "sh", device, place, ROOT / "tests/root/image/image_scan.py")


@pytest.fixture(scope="module")
def tree_and_archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict[str, Any]], str]:
    folder = tmp_path_factory.mktemp("layers")
    archive = f"oci-archive:{folder}/image.tar"
    return run(sys.executable, "-m", "tests.root.image.image_layers", folder, archive), archive


@pytest.fixture
def image(tree_and_archive: tuple[dict[str, dict[str, Any]], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path / "cache"))
    return resolve(tree_and_archive[1])


def test_same_tree_as_buildah(tree_and_archive: tuple[dict[str, dict[str, Any]], str], image: Image, tmp_path: Path) -> None:
    expected = tree_and_archive[0]
    found = scan_device(image.erofs, tmp_path / "mnt")
    assert len(expected) > 1000
    mtab = found.pop(repr(b"/etc/mtab"))  # ours, as docker's (`link_mtab`)
    assert mtab["mode"] == "0o120777"
    assert sorted(found) == sorted(expected)
    differing = {path: (found[path], expected[path]) for path in expected if found[path] != expected[path] and path != repr(b"/")}
    assert differing == {}
    # No layer describes the root: buildah gives its overlay 0555 and the time of the mount, docker (and we) 0755.
    assert found[repr(b"/")] == {"mode": "0o40755", "owner": [0, 0], "mtime": 0, "xattrs": {}}


def test_same_bits_again(
    image: Image, tree_and_archive: tuple[dict[str, dict[str, Any]], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path / "other cache"))
    again = resolve(tree_and_archive[1])
    assert again.erofs != image.erofs
    assert again.erofs.read_bytes() == image.erofs.read_bytes()


def test_fsck_finds_nothing(image: Image) -> None:
    done = subprocess.run(["fsck.erofs", image.erofs], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "rror" not in done.stdout + done.stderr


def test_random_layers_merge_as_the_kernel_merges_them(tmp_path: Path) -> None:
    cases: Any = run(sys.executable, "-m", "tests.root.image.image_overlay", tmp_path, "1", "150")
    assert len(cases) == 150
    assert sum(len(expected) for _, expected in cases) > 1500
    for number, (ours, kernels) in enumerate(cases, 1):
        assert ours == kernels, f"seed {number}"
