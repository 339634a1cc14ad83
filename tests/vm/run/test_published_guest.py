"""A guest in a real registry on this machine: pushed by `build`, taken by its digest by `run` and by an installation."""

import json
from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.guest import installable, published
from innkeeper.guest.store import Store
from tests.images import busybox_image
from tests.needs import needs
from tests.vm.command import innkeeper, succeed
from tests.vm.guest import artifacts
from tests.vm.run.test_registry import registry as registry

pytestmark = [pytest.mark.vm, needs("root", "docker-registry", "skopeo")]


def test_a_guest_is_built_once_and_runs_from_a_registry(registry: str, tmp_path: Path) -> None:
    built = artifacts()
    output, reference = succeed("build", "-o", str(tmp_path / "out"), "--sbom", "--push", f"{registry}/guests/default:1").splitlines()[::-1]
    assert output == str(tmp_path / "out")
    assert reference.startswith(f"oci:{registry}/guests/default@sha256:")
    ran = succeed("run", "--rm", "--guest", reference, "--start", "cold", busybox_image(), "uname", "-r")
    assert ran.endswith("-innkeeper\n")
    taken = installable(reference)
    assert taken.rootfs.read_bytes() == built.rootfs.read_bytes() and taken.vmlinux.read_bytes() == built.vmlinux.read_bytes()
    assert json.loads((taken.manifest.parent / "sbom.cdx.json").read_text())["bomFormat"] == "CycloneDX"
    refused = innkeeper("run", "--rm", "--guest", reference, "--kernel", "debian", busybox_image(), "true")
    assert (refused.returncode, b"--kernel debian cannot be used with a guest in a registry" in refused.stderr) == (125, True)


def test_what_is_not_the_guest_of_the_digest_is_refused(registry: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "rootfs.erofs").write_text("root")
    outputs = {"rootfs.erofs": {"size": 4, "sha256": "0" * 64}}
    (folder / "manifest.json").write_text(json.dumps({"outputs": outputs, "kernel": {"from": "ours"}, "variant": "release"}))
    reference = published.push({path.name: path for path in folder.iterdir()}, f"{registry}/guests/small:1")
    with pytest.raises(InnkeeperError, match=r"rootfs\.erofs is not the file of its manifest\.json"):
        published.pull(reference, store)
    with pytest.raises(InnkeeperError, match="not a guest in a registry by its digest"):
        published.pull(f"oci:{registry}/guests/small:1", store)
    with pytest.raises(InnkeeperError, match=r"guests/small@sha256:0{64} cannot be fetched"):
        published.pull(f"oci:{registry}/guests/small@sha256:{'0' * 64}", store)
    blob = next(path for path in (tmp_path / "registry").rglob("data") if path.read_bytes() == b"root")
    blob.write_bytes(b"Root")
    with pytest.raises(InnkeeperError):
        published.pull(reference, store)
    assert not list(store.root.glob("published-guest-*"))
