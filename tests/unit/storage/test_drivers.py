"""Storage drivers over a kernel that notes its calls: what is mounted, refused and undone, without root."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from agent import loop
from agent.device.watch import DeviceWatch
from agent.errors import AgentError, Refused, StepFailed, Unimplemented
from agent.linux import mount
from agent.storage import disk, ephemeral, erofs_layers, overlayfs, tree, watchable
from agent.storage.manager import StorageManager, driver_of, grouped, mount_storages
from agent.storage.options import OVERLAY_RW
from innkeeper.wire.pb.agent_pb2 import FSGroup, Storage
from tests.descriptors import open_descriptors
from tests.unit.storage.kernel import Kernel, mode_of

GROUP = os.getgid()


def attach(*storages: Storage) -> None:
    """Acquire and release storages as a container's."""

    async def main() -> None:
        table = StorageManager(DeviceWatch())
        points = await mount_storages(table, storages, container_id="box")
        assert [table.users(point) for point in points] == [1] * len(points)
        table.commit(points)
        await table.release(points)
        await table.clear()

    loop.run(main())


def storage(driver: str, point: Path, *options: str, **fields: Any) -> Storage:
    return Storage(driver=driver, mount_point=str(point), options=options, **fields)


@pytest.mark.parametrize(
    ("request_", "filesystem", "data", "attributes"),
    [
        ({"driver": "virtio-fs", "source": "tag", "options": ["nodev"]}, "virtiofs", {"source": "tag"}, mount.MOUNT_ATTR_NODEV),
        ({"driver": "9p", "source": "tag", "options": ["trans=virtio", "ro"]}, "9p", {"source": "tag", "ro": None, "trans": "virtio"}, 1),
        ({"driver": "ephemeral", "fstype": "tmpfs", "options": ["size=1m"]}, "tmpfs", {"source": "tmpfs", "size": "1m"}, 0),
        ({"driver": "ephemeral", "fstype": "tmpfs", "options": [f"fsgid={GROUP}"]}, "tmpfs", {"source": "tmpfs"}, 0),
        (
            {"driver": "overlayfs", "options": ["lowerdir=/a:/b"]},
            "overlay",
            {"source": "overlay", "lowerdir+": "/b"},  # the last of both: the stand-in keeps one value a key
            0,
        ),
    ],
)
def test_a_file_system_is_mounted_and_unmounted(
    request_: dict[str, Any], filesystem: str, data: dict[str, str | None], attributes: int, mounts: Kernel, tmp_path: Path
) -> None:
    attach(Storage(mount_point=str(tmp_path / "point"), **request_))
    assert mounts.asked == [(filesystem, data, attributes)]
    assert (mounts.mounts, (tmp_path / "point").exists()) == ({}, False)


def test_a_bind_of_a_file_with_attributes(mounts: Kernel, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("x")

    async def main() -> None:
        table = StorageManager(DeviceWatch())
        point = await table.acquire(storage("bind", tmp_path / "deep/point", "rbind", "ro", "rslave", source=str(tmp_path / "source")))
        assert mounts.mounts == {str(tmp_path / "deep/point"): "rbind"}
        assert (mounts.attributes, mounts.propagation) == ([(mount.MOUNT_ATTR_RDONLY, 0, True)], [(mount.MS_SLAVE, True)])
        await table.release([point])

    loop.run(main())
    assert mounts.mounts == {}


@pytest.mark.parametrize("call", ["set_attributes", "move_mount", "set_propagation"])
def test_a_bind_that_fails_leaves_nothing(call: str, mounts: Kernel, tmp_path: Path) -> None:
    mounts.fails = {call}
    (tmp_path / "source").mkdir()
    before = open_descriptors()
    with pytest.raises(StepFailed, match=f"{call} fails"):
        attach(storage("bind", tmp_path / "point", "ro", "private", source=str(tmp_path / "source")))
    assert mounts.mounts == {}
    assert open_descriptors() == before


def test_an_unmount_that_fails_is_reported(mounts: Kernel, tmp_path: Path) -> None:
    mounts.fails = {"umount2"}
    with pytest.raises(StepFailed, match="umount2 fails"):
        attach(storage("virtio-fs", tmp_path / "point", source="tag"))


def test_a_symbolic_link_is_not_followed(mounts: Kernel, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for point, source in ((tmp_path / "link/point", tmp_path / "real"), (tmp_path / "point", tmp_path / "link")):
        with pytest.raises(StepFailed, match="symbolic links"):
            attach(storage("bind", point, source=str(source)))
    assert mounts.mounts == {}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"driver": "nonesuch"}, "storage.driver"),
        ({"driver": "bind", "source": "relative"}, "storage.source"),
        ({"driver": "bind", "source": "/a", "options": ["size=1"]}, "storage.options"),
        ({"driver": "bind", "source": "/a", "driver_options": ["x=y"]}, "storage.driver_options"),
        ({"driver": "virtio-fs", "options": ["bind"]}, "storage.options"),
        ({"driver": "ephemeral", "fstype": "ext4"}, "storage.fstype"),
        ({"driver": "ephemeral", "fstype": "tmpfs", "options": ["fsgid=x"]}, "storage.options"),
        ({"driver": "ephemeral", "fstype": "hugetlbfs", "options": ["size=1"]}, "storage.options"),
        ({"driver": "ephemeral", "fstype": "hugetlbfs", "options": ["size=1", "pagesize=1000"]}, "storage.options"),
        ({"driver": "local", "options": ["mode=9"]}, "storage.options"),
        ({"driver": "local", "options": ["ro"]}, "storage.options"),
        ({"driver": "overlayfs", "driver_options": [f"{overlayfs.CREATE_DIRECTORY}=a"]}, "storage.driver_options"),
        ({"driver": "watchable-bind", "source": "/a", "options": ["size=1"]}, "storage.options"),
        ({"driver": "blk", "fstype": ""}, "storage.fstype"),
        ({"driver": "blk", "fstype": "xfs", "driver_options": [disk.CREATE_FILESYSTEM]}, "storage.fstype"),
        ({"driver": "blk", "fstype": "bind", "options": ["size=1"]}, "storage.options"),
        ({"driver": "blk", "fstype": "ext4", "options": ["X-kata.nonesuch"]}, "storage.options"),
        ({"driver": "blk", "fstype": "ext4", "options": ["X-kata.partition-number=129"]}, "storage.options"),
        ({"driver": "blk", "fstype": "ext4", "options": ["X-kata.gpt-partitioned=true"]}, "storage.options"),
        ({"driver": "blk", "fstype": "mkfs/ext4", "options": ["X-kata.mkfs.uuid=1"]}, "storage.options"),
        ({"driver": "blk", "fstype": "ext4", "options": ["X-kata.dmverity-enabled=yes"]}, "storage.options"),
    ],
)
def test_what_is_refused_by_name(fields: dict[str, Any], field: str, mounts: Kernel, tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        attach(Storage(mount_point=str(tmp_path / "point"), **fields))
    assert (caught.value.field, mounts.asked, mounts.mounts) == (field, [], {})


def test_drivers_that_are_absent_give_the_reason() -> None:
    with pytest.raises(Unimplemented, match="s390x"):
        driver_of("blk-ccw")


def test_a_local_directory_gets_its_mode_and_group(tmp_path: Path) -> None:
    attach(storage("local", tmp_path / "a/point", "mode=0750", f"fsgid={GROUP}"))
    assert mode_of(tmp_path / "a/point") == 0o2750


def test_huge_pages_are_reserved_or_given_back(mounts: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "hugepages-2048kB"
    folder.mkdir()
    monkeypatch.setattr(ephemeral, "HUGE_PAGES", f"{tmp_path}/hugepages-{{}}kB/{{}}")
    for name, pages in (("free_hugepages", 2), ("resv_hugepages", 1), ("nr_hugepages", 4)):
        (folder / name).write_text(str(pages))
    words = [f"pagesize={2 << 20}", f"size={8 << 20}"]
    attach(storage("ephemeral", tmp_path / "point", *words, fstype="hugetlbfs"))
    assert (folder / "nr_hugepages").read_text() == "7"  # 4 wanted, 1 of them free
    monkeypatch.setattr(ephemeral, "_pages", lambda kib, name: 0)
    with pytest.raises(StepFailed, match="not enough memory for 4 pages of 2048 kB"):
        attach(storage("ephemeral", tmp_path / "again", *words, fstype="hugetlbfs"))
    assert (folder / "nr_hugepages").read_text() == "0"


def test_files_of_a_volume_get_its_group(mounts: Kernel, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    (volume / "below").mkdir(parents=True)
    (volume / "below/file").write_text("x")
    (volume / "link").symlink_to("below/file")
    for path, mode in ((volume, 0o700), (volume / "below", 0o700), (volume / "below/file", 0o600)):
        path.chmod(mode)
    attach(storage("local", volume, fs_group=FSGroup(group_id=GROUP), shared=True))
    assert [mode_of(path) for path in (volume, volume / "below", volume / "below/file")] == [0o2777, 0o2770, 0o660]


DISK_OPTIONS = ("X-kata.partition-number=2", "X-kata.mkdir.path=/a", "X-kata.mkfs=true", "ro")


def test_a_disk_is_formatted_and_mounted(mounts: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, ...]] = []

    async def find(devices: DeviceWatch, source: str) -> str:
        return f"/dev/{source}"

    async def partition(devices: DeviceWatch, node: str, number: int) -> str:
        return f"{node}p{number}"

    async def run_program(name: str, arguments: tuple[str, ...], *, field: str) -> bytes:
        ran.append((name, arguments[-1]))
        return b""

    monkeypatch.setattr(disk, "NODE_OF", {"blk": find})
    monkeypatch.setattr(disk, "partition", partition)
    monkeypatch.setattr(disk, "run_program", run_program)
    attach(storage("blk", tmp_path / "point", *DISK_OPTIONS, source="vdk", fstype="ext4"))
    assert (ran, mounts.asked) == ([("mkfs.ext4", "/dev/vdkp2")], [("ext4", {"source": "/dev/vdkp2", "ro": None}, 1)])
    parsed = disk.read(storage("blk", tmp_path, *DISK_OPTIONS, "X-kata.mkfs.uuid=" + "0" * 8 + "-0000" * 3 + "-" + "0" * 12, fstype="ext4"))
    assert (parsed.partition, parsed.directories, parsed.format) == (2, ("/a",), ("-U", "00000000-0000-0000-0000-000000000000"))


def test_an_erofs_of_several_disks(mounts: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def find(devices: DeviceWatch, source: str, field: str = "") -> str:
        return f"/dev/sd{source[0]}"

    monkeypatch.setattr(disk, "NODE_OF", {"scsi": find})
    monkeypatch.setattr(disk, "scsi_block", find)
    attach(storage("scsi", tmp_path / "point", "ro", "device=7:0", source="6:0", fstype="erofs"))
    assert mounts.asked == [("erofs", {"source": "/dev/sd6", "ro": None, "device": "/dev/sd7"}, 1)]
    verified = ("X-kata.dmverity-enabled=true", f"X-kata.dmverity.roothash={'ab' * 32}", "X-kata.dmverity.hashoffset=8192")
    with pytest.raises(Refused, match="device=7:0: a disk that is verified"):
        disk.read(storage("scsi", tmp_path, "device=7:0", *verified, source="6:0", fstype="erofs"))


def test_layers_of_a_root_are_one_overlay(mounts: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def find(devices: DeviceWatch, source: str) -> str:
        return f"/dev/{source}"

    monkeypatch.setattr(erofs_layers, "CONTAINERS", str(tmp_path / "run"))
    monkeypatch.setattr(erofs_layers, "NODE_OF", {"blk": find})
    point = tmp_path / "root"
    lower = [storage("blk", point, "X-kata.multi-layer=true", "X-kata.overlay-lower", source=f"vd{n}", fstype="erofs") for n in "bc"]
    made = "X-kata.mkdir.path={{ mount 0 }}/upper:0700"
    upper = storage("blk", point, "X-kata.multi-layer=true", "X-kata.overlay-upper", made, source="vda", fstype="ext4")
    other = storage("local", tmp_path / "other")
    assert [len(group) for group in grouped([lower[0], other, upper, lower[1]])] == [3, 1]
    attach(lower[0], upper, lower[1])
    assert [(filesystem, data["source"]) for filesystem, data, _ in mounts.asked] == [
        *(("ext4", "/dev/vda"), ("erofs", "/dev/vdb"), ("erofs", "/dev/vdc"), ("overlay", "overlay"))
    ]
    assert (mounts.mounts, (tmp_path / "run/box/multi-layer").exists()) == ({}, False)
    with pytest.raises(Refused, match="0 upper and 2 lower layers"):
        attach(*lower)
    for path, why in (("/etc:0755", "only the upper layer"), ("{{ mount 0 }}/a:x", "no mode in octal")):
        with pytest.raises(Refused, match=why):
            erofs_layers.directories(disk.read(storage("blk", point, f"X-kata.mkdir.path={path}", fstype="ext4")))


def test_an_overlay_in_memory_has_an_upper_of_its_own(mounts: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlayfs, "CONTAINERS", str(tmp_path / "run"))
    made = f"{overlayfs.CREATE_DIRECTORY}={tmp_path}/made"
    attach(storage("overlayfs", tmp_path / "point", "lowerdir=/l", OVERLAY_RW, driver_options=[made]))
    [(_, data, _)] = mounts.asked
    assert (data["upperdir"], data["workdir"]) == (f"{tmp_path}/run/box/upper", f"{tmp_path}/run/box/work")
    assert ((tmp_path / "made").is_dir(), os.listdir(tmp_path / "run/box")) == (True, [])


def test_a_small_volume_is_copied_and_follows(mounts: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchable, "INTERVAL", 0.001)
    source, target = tmp_path / "source", tmp_path / "shared/volume"
    source.mkdir()
    (source / "key").write_text("old")
    (source / "link").symlink_to("key")

    async def main() -> None:
        table = StorageManager(DeviceWatch())
        point = await table.acquire(storage("watchable-bind", target, source=str(source)))
        assert ((target / "key").read_text(), os.readlink(target / "link")) == ("old", "key")
        (source / "new").write_text("new")
        (source / "key").unlink()
        with loop.timeout(20):
            while sorted(os.listdir(target)) != ["link", "new"]:
                await loop.sleep(0.001)
        await table.release([point])

    loop.run(main())
    assert not target.exists()


def test_a_large_volume_is_bound(mounts: Kernel, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "shared/volume"
    source.mkdir()
    for number in range(watchable.LIMIT_FILES + 1):
        (source / str(number)).write_text("x")

    async def main() -> None:
        table = StorageManager(DeviceWatch())
        await table.acquire(storage("watchable-bind", target, source=str(source)))
        assert mounts.mounts == {str(target.parent): "tmpfs", str(target): "bind"}
        await table.clear()

    loop.run(main())
    assert str(target) not in mounts.mounts


def test_a_directory_is_cleared_but_for_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/b", "kept/mount/file"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a/file").write_text("x")
    entry = type("Entry", (), {"mountpoint": str(tmp_path / "kept/mount")})
    monkeypatch.setattr(tree, "mount_table", lambda: [entry])
    tree.clear_directory(str(tmp_path))
    tree.clear_directory(str(tmp_path / "missing"))
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["kept", "kept/mount", "kept/mount/file"]


def test_what_is_acquired_before_a_failure_is_released(mounts: Kernel, tmp_path: Path) -> None:
    with pytest.raises(AgentError):
        attach(storage("virtio-fs", tmp_path / "a", source="tag"), storage("local", tmp_path / "b", "mode=x"))
    assert (mounts.mounts, stat.S_ISDIR(tmp_path.stat().st_mode)) == ({}, True)
