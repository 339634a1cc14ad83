"""The whole pipeline: the same inputs give the same bits elsewhere, and a changed one makes anew only what it is in."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from innkeeper import paths
from innkeeper.guest import Artifacts
from innkeeper.guest.kernel import CCACHE_FOLDER
from innkeeper.guest.pipeline import build_all
from innkeeper.guest.store import Store, record_of
from tests.needs import needs
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


def build_elsewhere(folder: Path, warm: Path | None) -> dict[str, Any]:
    """The manifest of a build from a copy of the tree with a cache of its own, both in `folder` and removed with it.

    From the store `warm` come the compiler's cache and the builders, the latter with buildah's storage.
    """
    try:
        copy_tree(folder / "tree")
        store = Store(folder / "cache" / "store")
        if warm is not None:
            shutil.copytree(warm / CCACHE_FOLDER, store.root / CCACHE_FOLDER)
            for builder in warm.glob("builder-*/"):
                shutil.copytree(builder, store.root / builder.name)
            (store.root.parent / "buildah").symlink_to(warm.parent / "buildah")
        return manifest_of(build_all(None, "release", store=store, project=folder / "tree"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def two_builds(name: str, warm: Path | None) -> list[dict[str, Any]]:
    """The manifests of two builds of this tree that share no result; what was built once is remembered in the store.

    The mirror may have moved since the first: then its inputs differ, and both are made anew.
    """
    first = artifacts()

    def make(out: Path) -> None:
        manifests = [manifest_of(first), build_elsewhere(out / "second", warm)]
        if manifests[0]["inputs"] != manifests[1]["inputs"]:
            manifests[0] = build_elsewhere(out / "third", warm)
        (out / "manifests.json").write_text(json.dumps(manifests))

    store = Store(paths.store_root())
    result = store.step(name, {"manifest": record_of(first.manifest.parent)["id"]}, make)
    manifests: list[dict[str, Any]] = json.loads((result / "manifests.json").read_text())
    return manifests


def assert_same(manifests: list[dict[str, Any]]) -> None:
    first, second = manifests
    assert first["inputs"] == second["inputs"]
    assert set(second["outputs"]) == {"bzImage", "config", "innkeeper.img", "innkeeper.initrd", "rootfs.erofs", "verity.toml", "vmlinux"}
    assert first["outputs"] == second["outputs"]


def test_another_folder_with_another_cache_gives_the_same_bits() -> None:
    """The compiler's cache and the builders come along, which spares most of the time; the long test goes without."""
    assert_same(two_builds("rebuilt", paths.store_root()))


@pytest.mark.long
def test_nothing_at_all_in_common_gives_the_same_bits() -> None:
    assert_same(two_builds("rebuilt-cold", None))


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
