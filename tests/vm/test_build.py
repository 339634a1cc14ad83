"""The whole pipeline: the same inputs give the same bits elsewhere, and a changed one makes anew only what it is in."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from innkeeper import paths
from innkeeper.errors import InnkeeperError
from innkeeper.guest import Artifacts, archives, lockfile, lsm_policies, wheels
from innkeeper.guest.builder import Builder
from innkeeper.guest.derived import IMAGE_PACKAGES
from innkeeper.guest.freeze import PACKAGES
from innkeeper.guest.kernel import CCACHE_FOLDER, SOURCES
from innkeeper.guest.pipeline import build_all
from innkeeper.guest.store import Store, record_of
from tests.needs import needs
from tests.paths import ROOT
from tests.vm.guest import artifacts

pytestmark = [pytest.mark.vm, needs("root")]

PARTS = ("agent", "innkeeper", "kernel-config", "rootfs")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The source tree in another folder."""
    project = tmp_path / "elsewhere" / "tree"
    copy_tree(project)
    return project


def copy_tree(target: Path) -> None:
    for part in PARTS:
        shutil.copytree(paths.project_root() / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))


def manifest_of(built: Artifacts) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(built.manifest.read_text())
    return document


BUILD = """
import sys
from pathlib import Path
from innkeeper.guest.derived import IMAGE_PACKAGES
from innkeeper.guest.pipeline import build_all
from innkeeper.guest.store import Store
print(build_all(None, "release", store=Store(Path(sys.argv[1])), project=Path(sys.argv[2])).manifest)
"""


def build_elsewhere(folder: Path, warm: Path, *, builders: bool) -> dict[str, Any]:
    """The manifest of a build without a network, from a copy of the tree with a cache of its own, both in `folder` and removed with it.

    From the store `warm` come the downloaded packages, and if asked for the compiler's cache and the
    builders, the latter with buildah's storage.
    """
    try:
        copy_tree(folder / "tree")
        loosen(folder / "tree")
        store = folder / "cache" / "store"
        shutil.copytree(warm / archives.FOLDER, store / archives.FOLDER, copy_function=os.link)
        if builders:
            shutil.copytree(warm / CCACHE_FOLDER, store / CCACHE_FOLDER)
            for builder in warm.glob("builder-*/"):
                shutil.copytree(builder, store / builder.name)
            (store.parent / "buildah").symlink_to(warm.parent / "buildah")
        command = ["unshare", "--net", sys.executable, "-c", BUILD, str(store), str(folder / "tree")]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        document: dict[str, Any] = json.loads(Path(done.stdout.strip()).read_text())
        return document
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def loosen(folder: Path) -> None:
    """Give a tree the modes of a checkout with a umask of 002, the default of many an ordinary user."""
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (path.stat().st_mode & 0o200) >> 3)


def two_builds(name: str, *, builders: bool) -> list[dict[str, Any]]:
    """The manifests of two builds of this tree that share no result; what was built once is remembered in the store."""
    first = artifacts()

    def make(out: Path) -> None:
        fill(paths.store_root())
        manifests = [manifest_of(first), build_elsewhere(out / "second", paths.store_root(), builders=builders)]
        (out / "manifests.json").write_text(json.dumps(manifests))

    store = Store(paths.store_root())
    result = store.step(name, {"manifest": record_of(first.manifest.parent)["id"], "network": False}, make)
    manifests: list[dict[str, Any]] = json.loads((result / "manifests.json").read_text())
    return manifests


def fill(root: Path) -> None:
    """Have a store hold what is downloaded for a build: its results may be of a time when that was not kept."""
    store, log = Store(root), root / ".logs" / "test.log"
    with Builder(PACKAGES, store) as builder:
        wheels.fetch(builder, paths.project_root() / "agent" / "requirements.lock", log)
    for packages in ([], PACKAGES, lsm_policies.PACKAGES, IMAGE_PACKAGES, next(iter(SOURCES.values())).builder(store).packages):
        pinned = store.pins.of(Builder(packages, store).request)
        assert pinned is not None
        archives.fetch(store, pinned, log)


def assert_same(manifests: list[dict[str, Any]]) -> None:
    first, second = manifests
    assert first["inputs"] == second["inputs"]
    assert set(second["outputs"]) == {"bzImage", "config", "innkeeper.img", "innkeeper.initrd", "rootfs.erofs", "verity.toml", "vmlinux"}
    assert first["outputs"] == second["outputs"]


def test_another_folder_with_another_cache_gives_the_same_bits() -> None:
    """It has no network. The compiler's cache and the builders come along, which spares most of the time; the long test goes without."""
    assert_same(two_builds("rebuilt", builders=True))


@pytest.mark.long
def test_nothing_at_all_in_common_gives_the_same_bits() -> None:
    assert_same(two_builds("rebuilt-cold", builders=False))


def test_the_results_are_those_of_the_lock_file() -> None:
    assert lockfile.compare(artifacts().manifest, ROOT / "guest.lock") == [], "if that is intended, run ./build.py build --golden"


def test_a_flipped_byte_in_a_kept_package_fails_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    package = next(one for one in store.pins.builders["trixie"] if one.name == "hostname")
    (file,) = archives.fetch(store, [package], tmp_path / "log")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InnkeeperError, match=f"^{file.name} in the store is not the package that was asked for"):
        build_all(None, "release", store=store)


def test_nothing_changed_builds_nothing(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = artifacts()
    capsys.readouterr()
    assert build_all(None, "release", project=copy) == before
    assert capsys.readouterr().err == ""


def test_a_changed_agent_makes_no_kernel(copy: Path) -> None:
    before = artifacts()
    (copy / "agent" / "errors.py").write_text((copy / "agent" / "errors.py").read_text() + "\nCHANGED = True\n")
    after = build_all(None, "release", project=copy)
    assert (after.vmlinux, after.bzImage) == (before.vmlinux, before.bzImage)
    assert after.rootfs.parent != before.rootfs.parent
    assert after.rootfs.read_bytes() != before.rootfs.read_bytes()
    for made in (after.rootfs, after.disk, after.initrd, after.verity, after.manifest):
        shutil.rmtree(made.parent)


def test_the_output_folder_has_what_it_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = build_all(tmp_path / "out", "release")
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["bzImage", "rootfs.erofs"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*manifest_of(built)["outputs"], "manifest.json"])
    assert all(path.resolve().is_relative_to(paths.store_root().resolve()) for path in (tmp_path / "out").iterdir())
