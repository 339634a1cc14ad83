"""A root made of several disks, and what the words of a disk ask for. Partitions and verified layers: see tests/vm."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.device.watch import DeviceWatch
from agent.errors import AgentError
from agent.storage.manager import StorageManager, grouped, mount_storages
from innkeeper.wire.pb.agent_pb2 import Storage
from tests.forked import CLONE_NEWNS, forked_loop
from tests.needs import needs

pytestmark = [pytest.mark.root, needs("loop", "mke2fs", "mkfs.erofs")]


def attach(image: Path) -> str:
    return subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[dict[str, str]]:
    """`upper`: unformatted; `base` and `top`: erofs, with files."""
    nodes = {}
    with (tmp_path / "upper.img").open("wb") as file:
        file.truncate(16 << 20)
    for name in ("base", "top"):
        folder = tmp_path / f"{name}-files"
        folder.mkdir()
        (folder / "who").write_text(name)
        (folder / name).touch()
        subprocess.run(["mkfs.erofs", "--quiet", tmp_path / f"{name}.img", folder], check=True, capture_output=True)
    for name in ("upper", "base", "top"):
        nodes[name] = attach(tmp_path / f"{name}.img")
    yield nodes
    for node in nodes.values():
        subprocess.run(["losetup", "--detach", node], check=True)


def layer(source: str, point: Path, fstype: str, *words: str, **fields: Any) -> Storage:
    options = ["X-kata.multi-layer=true", *(f"X-kata.{word}" for word in words)]
    return Storage(driver="mmioblk", source=source, fstype=fstype, mount_point=str(point), options=options, **fields)


def group(disks: dict[str, str], point: Path) -> list[Storage]:
    made = ("mkdir.path={{ mount 0 }}/upper:0700", "mkdir.path={{ mount 0 }}/extra/deep")
    upper = layer(disks["upper"], point, "ext4", "overlay-upper", "mkfs=true", *made)
    upper.options.append("rw")
    lowers = [layer(disks[name], point, "erofs", "overlay-lower") for name in ("top", "base")]
    for lower in lowers:
        lower.options.append("ro")
    return [upper, *lowers]


def test_layers(disks: dict[str, str], tmp_path: Path) -> None:
    async def body() -> None:
        table = StorageManager(DeviceWatch(hotplug_timeout=0.5))
        root = tmp_path / "root"
        Path("/run/kata-containers").mkdir(exist_ok=True)
        points = await mount_storages(table, group(disks, root), container_id="c1")
        assert points == [str(root)]
        assert (root / "who").read_text() == "top"
        assert {path.name for path in root.iterdir()} == {"who", "top", "base"}
        (root / "new").write_text("x")
        (root / "who").write_text("changed")
        base = Path("/run/kata-containers/c1/multi-layer")
        assert (base / "upper/upper/new").read_text() == "x"
        assert (base / "upper/extra/deep").is_dir()
        assert (base / "lower-0/who").read_text() == "top"
        await table.release(points)
        assert not root.exists()
        assert not base.exists()
        assert "/multi-layer" not in Path("/proc/self/mounts").read_text()

    forked_loop(body, unshare=CLONE_NEWNS)


def test_a_failure_leaves_nothing(disks: dict[str, str], tmp_path: Path) -> None:
    async def body() -> None:
        table = StorageManager(DeviceWatch(hotplug_timeout=0.2))
        changes: tuple[tuple[dict[str, Any], str], ...] = (
            ({"source": "/dev/loop-none"}, "did not appear"),
            ({"fstype": "xfs"}, "layers are ext4 or erofs"),
            ({"options": ["X-kata.multi-layer=true", "X-kata.overlay-upper"]}, "2 upper and 1 lower"),
            ({"options": ["X-kata.multi-layer=true", "X-kata.partition-number=7"]}, "partition 7"),
        )
        for change, reason in changes:
            storages = group(disks, tmp_path / "root")
            if "options" in change:
                del storages[2].options[:]
            storages[2].MergeFrom(Storage(**change))
            with pytest.raises(AgentError, match=reason):
                await mount_storages(table, storages, container_id="c1")
            assert "/multi-layer" not in Path("/proc/self/mounts").read_text()
            assert not (tmp_path / "root").exists()

    forked_loop(body, unshare=CLONE_NEWNS)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["X-kata.surprise=1"], "X-kata.surprise is unknown"),
        (["X-kata.partition-number=0x1"], "not of 1 to 128"),
        (["X-kata.gpt-partitioned=true"], "without X-kata.partition-number"),
        (["X-kata.dmverity.roothash=00"], "without X-kata.dmverity-enabled=true"),
        (["X-kata.dmverity-enabled=true", "X-kata.dmverity.roothash=00"], "not 64 hexadecimal digits"),
        (["X-kata.dmverity-enabled=yes"], "true or false"),
        (["X-kata.dmverity-enabled=true", "X-kata.dmverity.algorithm=md5"], "algorithm=md5"),
        (["X-kata.dmverity-enabled=true", f"X-kata.dmverity.roothash={'0' * 64}", "X-kata.dmverity.hashoffset=-1"], "not a number"),
        (
            ["X-kata.dmverity-enabled=true", f"X-kata.dmverity.roothash={'0' * 64}", "X-kata.dmverity.hashoffset=4096", "X-kata.mkfs=true"],
            "ver",
        ),
        (["X-kata.mkfs=true", "X-kata.mkfs.fs=btrfs"], "only ext4 is made here"),
        (["X-kata.mkfs=true", "X-kata.mkfs.uuid=1"], "no UUID"),
        (["bind"], "bind makes no sense"),
    ],
)
def test_refused_words(words: list[str], reason: str, tmp_path: Path) -> None:
    async def body() -> None:
        storage = Storage(driver="blk", source="/dev/vdz", fstype="ext4", mount_point=str(tmp_path / "v"), options=words)
        with pytest.raises(AgentError, match=reason):
            await StorageManager(DeviceWatch(hotplug_timeout=0.1)).acquire(storage)

    forked_loop(body, unshare=CLONE_NEWNS)


def test_grouping() -> None:
    """Layers come together where the first of them stands; the order of the rest is kept."""
    a, b, c, d = (
        Storage(driver="blk", source=name, mount_point=point) for name, point in (("a", "/1"), ("b", "/2"), ("c", "/1"), ("d", "/3"))
    )
    for storage in (a, c):
        storage.options.append("X-kata.multi-layer=true")
    assert [[storage.source for storage in found] for found in grouped([d, a, b, c])] == [["d"], ["a", "c"], ["b"]]


@pytest.mark.parametrize("driver", ["image_guest_pull", "blk-ccw"])
def test_absent_drivers_by_name(driver: str, tmp_path: Path) -> None:
    async def body() -> None:
        with pytest.raises(AgentError, match=f"{driver} is not served") as caught:
            await StorageManager(DeviceWatch()).acquire(Storage(driver=driver, mount_point=str(tmp_path / "v")))
        assert caught.value.code == 12

    forked_loop(body)
