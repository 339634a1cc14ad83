"""A guest with Debian's ready-made kernel: it boots our root, and tells what it lacks."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper import guest
from innkeeper.engine import records
from innkeeper.engine.guest_agent import connected
from innkeeper.errors import InnkeeperError
from innkeeper.guest import BootFiles
from innkeeper.image import to_proto
from innkeeper.wire.pb import agent_pb2
from tests.images import busybox_image
from tests.vm.command import detached, innkeeper, inspected, succeed

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def boot_files() -> BootFiles:
    return guest.boot_files("release", "debian")


@pytest.fixture(scope="module")
def container(start: str, boot_files: BootFiles) -> Iterator[str]:
    with detached(busybox_image(), "sleep", "1000", options=("--kernel", "debian", "--cap-add", "NET_ADMIN")) as id:
        yield id


def test_it_is_debians_kernel_and_inspect_says_so(container: str, boot_files: BootFiles) -> None:
    release = json.loads((boot_files.kernel.parent / "kernel.json").read_text())["release"]
    assert succeed("exec", container, "uname", "-r").strip() == release
    assert inspected(container)["kernel"] == boot_files.kernel_from == f"debian {release.partition('+')[0]}-1"


def test_modules_of_the_contract_are_loaded_when_needed_and_no_others(container: str) -> None:
    assert "veth" not in succeed("exec", container, "cat", "/proc/modules")
    succeed("exec", container, "ip", "link", "add", "name", "one", "type", "veth", "peer", "name", "two")
    assert "veth" in succeed("exec", container, "cat", "/proc/modules")
    refused = innkeeper("exec", container, "ip", "link", "add", "name", "three", "type", "dummy")
    assert refused.returncode != 0 and b"not supported" in refused.stderr


def test_what_it_lacks_is_refused_by_name(container: str, boot_files: BootFiles) -> None:
    assert "NET_9P" in boot_files.kernel_lacks
    share = agent_pb2.Storage(driver="9p", source="share", fstype="9p", mount_point="/run/share", options=["trans=virtio"])
    running = records.lookup(container)
    spec = to_proto(json.loads((running.folder / "spec.json").read_text()))
    request = agent_pb2.CreateContainerRequest(container_id="other", exec_id="other", storages=[share], OCI=spec)
    with pytest.raises(InnkeeperError, match="9p"), connected(running) as agent:
        agent.create_container(request)


def test_build_writes_it_in_place_of_ours(tmp_path: Path, boot_files: BootFiles) -> None:
    (tmp_path / "vmlinux").symlink_to(tmp_path)  # left by a build of ours
    succeed("build", "--kernel", "debian", "--output", str(tmp_path))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {*manifest["outputs"], "manifest.json"} >= {"bzImage", "modules.initrd", "rootfs.erofs"}
    assert not (tmp_path / "vmlinux").is_symlink()
    assert (tmp_path / "bzImage").resolve() == boot_files.kernel
    assert manifest["kernel"]["lacks"] == boot_files.kernel_lacks
    packages = [entry for entry in manifest["inputs"] if entry.get("builders") == ["kernel"]]
    assert {entry["name"].partition("-6")[0] for entry in packages} >= {"linux-image"}
    assert all(len(entry["sha256"]) == 64 for entry in packages)
