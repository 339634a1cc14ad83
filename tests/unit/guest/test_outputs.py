"""Disk, manifest, budgets and the output folder: small files in place of large ones, the code is the same."""

import hashlib
import json
import os
import subprocess
from itertools import accumulate
from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.guest.disk import boot_record, make_disk
from innkeeper.guest.manifest import make_manifest
from innkeeper.guest.pipeline import BUDGETS, check_budgets, link
from innkeeper.guest.store import JSON, Store
from innkeeper.guest.verity import parameters, shim_line
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


@pytest.fixture
def verity(store: Store) -> Path:
    """A step `verity` with a hash tree."""

    def make(out: Path) -> None:
        (out / "tree").write_bytes(b"tree" * 1024)

    return store.step("verity", {}, make)


def partitions(disk: Path) -> list[tuple[int, int, str]]:
    """Start and size in bytes, and type, as sfdisk reads them."""
    done = subprocess.run(["sfdisk", "--json", disk], capture_output=True, text=True, check=True)
    table = json.loads(done.stdout)["partitiontable"]
    assert (table["label"], table["sectorsize"]) == ("dos", 512)
    return [(entry["start"] * 512, entry["size"] * 512, entry["type"]) for entry in table["partitions"]]


@needs("sfdisk")
def test_the_disk_as_a_block_device(store: Store, root: Path, verity: Path) -> None:
    disk = make_disk(store, root, verity) / "innkeeper.img"
    assert partitions(disk) == [(3 * MIB, 2 * MIB, "83"), (5 * MIB, MIB, "83")]
    content, tree = (root / "root.erofs").read_bytes(), (verity / "tree").read_bytes()
    data = disk.read_bytes()
    assert data[3 * MIB :].startswith(content + bytes(2 * MIB - len(content)) + tree)
    assert set(data[5 * MIB + len(tree) :]) == {0}


@needs("sfdisk")
def test_the_disk_as_a_memory_device(store: Store, root: Path, verity: Path, tmp_path: Path) -> None:
    """What the guest sees begins at 2 MiB, if the kernel believes the info block: its signature, sums, version, mode and offsets."""
    data = (make_disk(store, root, verity) / "innkeeper.img").read_bytes()
    seen = tmp_path / "seen"
    seen.write_bytes(data[2 * MIB :])
    assert partitions(seen) == [(MIB, 2 * MIB, "83"), (3 * MIB, MIB, "83")]
    block = data[4096:8192]
    words = [int.from_bytes(block[at : at + 4], "little") for at in range(0, 4088, 4)] + [0, 0]
    sums = list(accumulate(words))
    assert int.from_bytes(block[4088:], "little") == (sum(sums) % 2**32 << 32) + sums[-1] % 2**32
    assert block[:16] == b"NVDIMM_PFN_INFO\0"
    assert block[32:48] == bytes(16), "a namespace without labels has no UUID to be the parent's"
    assert [int.from_bytes(block[at : at + 2], "little") for at in (52, 54)] == [0, 2]
    assert int.from_bytes(block[56:64], "little") == 2 * MIB
    assert [int.from_bytes(block[at : at + 4], "little") for at in (72, 76, 80, 84)] == [1, 0, 0, 2 * MIB]
    assert len(data) == 128 * MIB


def test_the_disk_is_as_large_on_the_host_as_what_is_in_it(store: Store, root: Path, verity: Path) -> None:
    written = (make_disk(store, root, verity) / "innkeeper.img").stat().st_blocks * 512
    assert written < 4 * MIB


@pytest.mark.parametrize(("start", "size"), [(1, 512), (512, 100), (0, 512 << 32)])
def test_what_a_boot_record_cannot_say_is_refused(start: int, size: int) -> None:
    with pytest.raises(InnkeeperError, match="cannot be written to an MBR"):
        boot_record([(start, size)])


def test_the_hash_trees_parameters_as_the_shim_takes_them() -> None:
    hashed = parameters("ab" * 32, 5 * 4096)
    salt = hashed["salt"]
    assert shim_line(hashed) == (
        f'kernel_verity_params = "root_hash={"ab" * 32},salt={salt},data_blocks=5,data_block_size=4096,hash_block_size=4096"'
    )


def test_the_manifest_lists_steps_inputs_and_outputs(store: Store, root: Path, tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"# locked\nprotobuf==6.30.0 \\\n    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\n")
    packages = {
        "agent": [{"name": "zlib1g", "version": "1", "architecture": "amd64", "sha256": "c"}],
        "kernel": [{"name": "zlib1g", "version": "1", "architecture": "amd64"}],
    }
    image = root / "root.erofs"
    facts: dict[str, JSON] = {"verity": {"data_blocks": 366}, "kernel": {"from": "ours"}}
    path = make_manifest(store, "release", [root], packages, lock, {"rootfs.erofs": image}, facts) / "manifest.json"
    manifest = json.loads(path.read_text())
    assert (manifest["manifest_version"], manifest["variant"]) == (1, "release")
    assert [(step["name"], step["inputs"]) for step in manifest["steps"]] == [("rootfs", {})]
    assert manifest["inputs"] == [
        {"type": "debian", "name": "zlib1g", "version": "1", "architecture": "amd64", "sha256": "c", "builders": ["agent", "kernel"]},
        {"type": "python", "name": "protobuf", "version": "6.30.0", "sha256": ["a" * 64, "b" * 64]},
    ]
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    assert manifest["outputs"] == {"rootfs.erofs": {"size": image.stat().st_size, "sha256": digest}}
    assert manifest["verity"] == {"data_blocks": 366}
    assert manifest["kernel"] == {"from": "ours"}
    assert str(tmp_path) not in path.read_text()


def sized(folder: Path, sizes: dict[str, int]) -> dict[str, Path]:
    for name, size in sizes.items():
        with open(folder / name, "wb") as file:
            file.truncate(size)
    return {name: folder / name for name in sizes}


def test_sizes_are_shown_beside_their_budgets_and_fail_above(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_budgets(sized(tmp_path, BUDGETS), show=True)
    check_budgets(sized(tmp_path, {"rootfs.erofs": BUDGETS["rootfs.erofs"]}), show=False)
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
