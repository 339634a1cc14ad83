"""Disk, manifest, budgets and the output folder: small files in place of large ones, the code is the same."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from innkeeper.build.disk import PARTITION_START, boot_record, make_disk
from innkeeper.build.manifest import make_manifest
from innkeeper.build.pipeline import BUDGETS, check_budgets, link
from innkeeper.build.store import Store
from innkeeper.errors import InnkeeperError
from tests.needs import needs

MIB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def root(store: Store) -> Path:
    """A step `rootfs` whose image is not a whole number of MiB."""

    def make(out: Path) -> None:
        (out / "root.erofs").write_bytes(b"erofs" * 300_000)

    return store.step("rootfs", {}, make)


@needs("sfdisk")
def test_partition_one_of_the_disk_is_the_root(store: Store, root: Path) -> None:
    disk = make_disk(store, root) / "innkeeper.img"
    done = subprocess.run(["sfdisk", "--json", disk], capture_output=True, text=True, check=True)
    table = json.loads(done.stdout)["partitiontable"]
    assert table["label"] == "dos"
    (partition,) = table["partitions"]
    assert (partition["start"] * 512, partition["size"] * 512, partition["type"]) == (3 * MIB, 2 * MIB, "83")
    content = (root / "root.erofs").read_bytes()
    data = disk.read_bytes()
    assert data[PARTITION_START : PARTITION_START + len(content)] == content
    assert set(data[PARTITION_START + len(content) :]) == {0}
    assert len(data) == 5 * MIB


@pytest.mark.parametrize(("start", "size"), [(1, 512), (512, 100), (0, 512 << 32)])
def test_what_a_boot_record_cannot_say_is_refused(start: int, size: int) -> None:
    with pytest.raises(InnkeeperError, match="cannot be written to an MBR"):
        boot_record(start, size)


def test_the_manifest_lists_steps_inputs_and_outputs(store: Store, root: Path, tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"# locked\nprotobuf==6.30.0 \\\n    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\n")
    packages = {
        "agent": [{"name": "zlib1g", "version": "1", "architecture": "amd64", "sha256": "c"}],
        "kernel": [{"name": "zlib1g", "version": "1", "architecture": "amd64"}],
    }
    image = root / "root.erofs"
    path = make_manifest(store, "release", [root], packages, lock, {"rootfs.erofs": image}) / "manifest.json"
    manifest = json.loads(path.read_text())
    assert (manifest["manifest_version"], manifest["variant"]) == (1, "release")
    assert [(step["name"], step["inputs"]) for step in manifest["steps"]] == [("rootfs", {})]
    assert manifest["inputs"] == [
        {"type": "debian", "name": "zlib1g", "version": "1", "architecture": "amd64", "sha256": "c", "builders": ["agent", "kernel"]},
        {"type": "python", "name": "protobuf", "version": "6.30.0", "sha256": ["a" * 64, "b" * 64]},
    ]
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    assert manifest["outputs"] == {"rootfs.erofs": {"size": image.stat().st_size, "sha256": digest}}
    assert str(tmp_path) not in path.read_text()


def sized(folder: Path, sizes: dict[str, int]) -> dict[str, Path]:
    for name, size in sizes.items():
        with open(folder / name, "wb") as file:
            file.truncate(size)
    return {name: folder / name for name in sizes}


def test_sizes_are_shown_beside_their_budgets_and_fail_above(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_budgets(sized(tmp_path, BUDGETS), show=True)
    assert capsys.readouterr().err.splitlines() == ["bzImage: 6.00 MB of 6 MB", "rootfs.erofs: 25.00 MB of 25 MB"]
    with pytest.raises(InnkeeperError, match="bzImage has 6000001 bytes, its budget is 6000000"):
        check_budgets(sized(tmp_path, BUDGETS | {"bzImage": BUDGETS["bzImage"] + 1}), show=False)


def test_links_are_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    outputs = sized(tmp_path, {"bzImage": 1})
    folder = tmp_path / "out"
    for _ in range(2):
        links = link(outputs, folder)
    assert os.listdir(folder) == ["bzImage"]
    assert links["bzImage"].resolve() == outputs["bzImage"]
