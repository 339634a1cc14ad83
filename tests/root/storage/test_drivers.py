"""Every storage driver with what Kata's shims send to it: sources, types and options as they come, down to the system call.

A disk, a share and a memory device are not to be had outside of a guest. So sysfs is made up, and new_mount (fsopen, fsconfig, fsmount)
notes what it is asked for and gives a tmpfs. Binds, directories, the copy that is followed and all that is taken away are real.
"""

import ast
import os
import stat
from pathlib import Path
from typing import NamedTuple

import pytest

from agent.device.watch import DeviceWatch
from agent.errors import AgentError
from agent.linux import mount
from agent.storage import driver, ephemeral
from agent.storage.manager import DRIVERS, LAYERS, StorageManager
from agent.storage.mounted import mounted_type
from innkeeper.wire.pb.agent_pb2 import FSGroup, Storage
from tests.forked import CLONE_NEWNS, forked_loop
from tests.mounts import mounts

pytestmark = pytest.mark.root

DISK = "vdk"
NODE = f"/dev/{DISK}"
CONTAINER_MOUNT = ("rbind", "rprivate", "ro")
"""What containerd gives a volume of the kubelet's; Kata's shim copies it from the container's mount."""
FS_OPT = "io.katacontainers.fs-opt."
OF_A_FILE = (f"{FS_OPT}block_device=file", f"{FS_OPT}is-layer")
CREATE_DIRECTORY = "io.katacontainers.volume.overlayfs.create_directory"
NODEV, NOSUID, NOEXEC = mount.MOUNT_ATTR_NODEV, mount.MOUNT_ATTR_NOSUID, mount.MOUNT_ATTR_NOEXEC
RDONLY = mount.MOUNT_ATTR_RDONLY


class MountRequest(NamedTuple):
    """What the kernel is asked to mount: type, the filesystem's words after the source, attributes."""

    filesystem: str
    words: str
    attributes: int = 0


class Case(NamedTuple):
    """A storage with `{}` for the test's folder, and what is asked of the kernel for it; None for a bind or a directory."""

    name: str
    driver: str
    source: str
    fstype: str
    options: tuple[str, ...]
    request: MountRequest | None
    driver_options: tuple[str, ...] = ()
    group: int = 0


SHM = ("noexec", "nosuid", "nodev", "mode=1777", "size=67108864")
LOWER = f"{FS_OPT}layer-src-prefix=/var/lib/x", f"{FS_OPT}layer=bGF5ZXI=", "lowerdir={}/a:{}/b"

CASES = (
    Case("share", "virtio-fs", "kataShared", "virtiofs", (), MountRequest("virtiofs", "")),
    Case("share with dax", "virtio-fs", "kataShared", "virtiofs", ("dax",), MountRequest("virtiofs", "dax")),
    Case(
        "9p",
        "9p",
        "kataShared",
        "9p",
        ("trans=virtio,version=9p2000.L,cache=mmap", "nodev", "msize=8192"),
        MountRequest("9p", "trans=virtio version=9p2000.L cache=mmap msize=8192", NODEV),
    ),
    Case("shm", "ephemeral", "shm", "tmpfs", SHM, MountRequest("tmpfs", "mode=1777 size=67108864", NODEV | NOSUID | NOEXEC)),
    Case("memory emptyDir", "ephemeral", "tmpfs", "tmpfs", (), MountRequest("tmpfs", "")),
    Case("memory emptyDir of a group", "ephemeral", "tmpfs", "tmpfs", ("fsgid=2000",), MountRequest("tmpfs", "")),
    Case(
        "huge pages",
        "ephemeral",
        "nodev",
        "hugetlbfs",
        ("pagesize=2097152,size=0",),
        MountRequest("hugetlbfs", "pagesize=2097152 size=0"),
    ),
    Case("emptyDir", "local", "local", "local", ("mode=0777",), None),
    Case("emptyDir of a group", "local", "local", "local", ("mode=0777", "fsgid=2000"), None),
    Case("pmem volume", "nvdimm", NODE, "ext4", ("dax",), MountRequest("ext4", "dax")),
    Case("block root", "blk", "02/03", "ext4", (), MountRequest("ext4", "")),
    Case("block root of xfs", "blk", "02/03", "xfs", ("nouuid",), MountRequest("xfs", "nouuid")),
    Case("erofs layer", "blk", "02/03", "erofs", ("ro",), MountRequest("erofs", "ro", RDONLY)),
    Case(
        "direct volume of a CSI driver",
        "blk",
        "02/03",
        "ext4",
        ("rw", "discard", "_netdev", "nofail", "x-systemd.automount", "user"),
        MountRequest("ext4", "discard", NODEV | NOSUID | NOEXEC),
        group=2000,
    ),
    Case("raw block volume", "blk", "02/03", "bind", CONTAINER_MOUNT, None),
    Case("vhost-user-blk", "blk", "02/03", "bind", ("bind",), None),
    Case("layer of a file", "blk", "02/03", "erofs", (*OF_A_FILE, "ro"), MountRequest("erofs", "ro", RDONLY)),
    Case("block root", "scsi", "0:1", "ext4", (), MountRequest("ext4", "")),
    Case("raw block volume", "scsi", "0:1", "bind", ("rbind", "rprivate", "rw"), None),
    Case("block root", "mmioblk", NODE, "ext4", (), MountRequest("ext4", "")),
    Case("raw block volume", "mmioblk", NODE, "bind", ("rbind", "rprivate", "rw"), None),
    Case(
        "layers of shares",
        "overlayfs",
        "none",
        "overlay",
        (f"{FS_OPT}overlay-rw", *LOWER),
        MountRequest("overlay", "lowerdir+={}/a lowerdir+={}/b upperdir={}/run/c1/upper workdir={}/run/c1/work"),
    ),
    Case(
        "layers of erofs",
        "overlayfs",
        "overlay",
        "overlay",
        ("lowerdir={}/a:{}/b", "upperdir={}/up", "workdir={}/work"),
        MountRequest("overlay", "lowerdir+={}/a lowerdir+={}/b upperdir={}/up workdir={}/work"),
        (f"{CREATE_DIRECTORY}={{}}/up", f"{CREATE_DIRECTORY}={{}}/work"),
    ),
    Case("config map", "watchable-bind", "{}/config", "bind", CONTAINER_MOUNT, MountRequest("tmpfs", "mode=0755", NODEV | NOSUID)),
    Case("secret", "watchable-bind", "{}/config", "bind", ("rbind", "rslave", "rw"), MountRequest("tmpfs", "mode=0755", NODEV | NOSUID)),
    Case("config map, deeply read-only", "watchable-bind", "{}/config", "bind", ("rbind", "rprivate", "rro", "nosuid"), None),
    Case("sandbox's folder", "bind", "{}/config", "bind", CONTAINER_MOUNT, None),
    Case("sandbox's file", "bind", "{}/config/key", "bind", ("bind", "rro", "nodev"), None),
)


def test_no_driver_is_left_out() -> None:
    """Those of layers have tests of their own, in `test_layers` and tests/vm."""
    assert {case.driver for case in CASES} == set(DRIVERS) - {LAYERS}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.driver}: {case.name}")
def test_what_the_shim_sends(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put in place twice over, as by two containers, and gone with the second of them or at the end."""
    made = _Machine(tmp_path, monkeypatch)
    point = tmp_path / "containers/watchable/v"

    def named(text: str) -> str:
        return text.replace("{}", str(tmp_path))

    storage = Storage(
        driver=case.driver,
        source=named(case.source),
        fstype=case.fstype,
        options=[named(option) for option in case.options],
        driver_options=[named(option) for option in case.driver_options],
        mount_point=str(point),
    )
    if case.group:
        storage.fs_group.CopyFrom(FSGroup(group_id=case.group))

    async def body() -> None:
        before = mounts(tmp_path)
        table = StorageManager(made.devices)
        points = [await table.acquire(storage, "c1"), await table.acquire(storage, "c1")]
        asked = made.requests()
        if case.request is not None:
            assert asked == [case.request._replace(words=named(case.request.words))]
        _check_what_is_there(case, point)
        await table.release(points[:1])
        assert point.exists()
        await table.release(points[1:])
        await table.clear()
        assert mounts(tmp_path) == before

    forked_loop(body, unshare=CLONE_NEWNS)


def _check_what_is_there(case: Case, point: Path) -> None:
    status = point.stat()
    if case.fstype == "bind" and case.driver in ("blk", "scsi", "mmioblk"):
        assert stat.S_ISBLK(status.st_mode)
        assert _attributes(point)[0] == ("ro" if "ro" in case.options else "rw")
    elif case.driver == "bind":
        assert _attributes(point)[0] == "ro"
        assert point.is_dir() or "nodev" in _attributes(point)
    elif case.driver == "watchable-bind":
        assert (point / "key").read_text() == "value"
        assert mounted_type(str(point.parent)) == "tmpfs"
    elif "fsgid=2000" in case.options or case.group:
        assert (status.st_gid, bool(status.st_mode & stat.S_ISGID)) == (2000, True)


def _attributes(point: Path) -> list[str]:
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return next(fields[5] for fields in reversed(lines) if fields[4] == str(point)).split(",")


REFUSED = (
    (("blk", "02/03", "ext4"), (f"{FS_OPT}root-hash=00",), (), f"{FS_OPT}root-hash=00 is unknown"),
    (("blk", "02/03", "ext4"), CONTAINER_MOUNT, (), "bind makes no sense with driver blk"),
    (("blk", "02/03", "bind"), ("size=1",), (), "size makes no sense for a disk that is not mounted"),
    (("blk", "02/03", "bind"), ("bind",), ("create_filesystem",), "only ext4 is made here, not bind"),
    (("blk", "02/03", "ext4"), (), ("encryption_key=ephemeral",), "encryption_key is not supported by driver blk"),
    (("watchable-bind", "/etc", "bind"), ("rbind", "size=3"), (), "size makes no sense"),
    (("watchable-bind", "/etc", "bind"), ("rbind", "remount"), (), "remount makes no sense"),
    (("virtio-fs", "tag", "virtiofs"), ("rbind",), (), "bind makes no sense with driver virtio-fs"),
    (("local", "local", "local"), ("mode=0777", "size=3"), (), "size=3 makes no sense with driver local"),
)


@pytest.mark.parametrize(("of", "options", "driver_options", "reason"), REFUSED)
def test_what_is_refused_by_name(
    of: tuple[str, str, str],
    options: tuple[str, ...],
    driver_options: tuple[str, ...],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = _Machine(tmp_path, monkeypatch)
    name, source, fstype = of
    storage = Storage(driver=name, source=source, fstype=fstype, mount_point=f"{tmp_path}/v")
    storage.options.extend(options)
    storage.driver_options.extend(driver_options)

    async def body() -> None:
        table = StorageManager(made.devices)
        with pytest.raises(AgentError) as caught:
            await table.acquire(storage, "c1")
        assert reason in str(caught.value)
        assert made.requests() == []
        assert table.users(storage.mount_point) == 0

    forked_loop(body, unshare=CLONE_NEWNS)


class _Machine:
    """A made-up sysfs in which one disk has all names, and the notes of what is mounted."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._notes = folder / "asked"
        self._notes.touch()
        sys_root = folder / "sys"
        for directory in ("bus/pci/devices", "class/scsi_host", f"class/block/{DISK}", f"class/scsi_device/0:0:0:1/device/block/{DISK}"):
            (sys_root / directory).mkdir(parents=True)
        bridge = sys_root / "devices/pci0000:00/0000:00:02.0"
        disk = bridge / f"0000:01:03.0/virtio3/block/{DISK}"
        disk.mkdir(parents=True)
        (bridge / "pci_bus/0000:01").mkdir(parents=True)
        for place in (disk, sys_root / f"class/block/{DISK}"):
            (place / "dev").write_text("7:7\n")
        (folder / "dev").mkdir()
        os.mknod(folder / "dev" / DISK, stat.S_IFBLK | 0o600, os.makedev(7, 7))
        self.devices = DeviceWatch(hotplug_timeout=0.2, sys_root=str(sys_root), dev_root=f"{folder}/dev")
        (folder / "config").mkdir()
        (folder / "config/key").write_text("value")
        huge = folder / "hugepages-2048kB"
        huge.mkdir()
        for name in ("free_hugepages", "resv_hugepages", "nr_hugepages"):
            (huge / name).write_text("0\n")
        monkeypatch.setattr(ephemeral, "HUGE_PAGES", f"{folder}/hugepages-{{}}kB/{{}}")
        monkeypatch.setattr("agent.storage.overlayfs.CONTAINERS", f"{folder}/run")
        monkeypatch.setattr(driver, "new_mount", self._new_mount)

    def _new_mount(self, filesystem: bytes, options: tuple[tuple[bytes, bytes | None], ...], attributes: int = 0) -> int:
        words = [key.decode() if value is None else f"{key.decode()}={value.decode()}" for key, value in options if key != b"source"]
        with self._notes.open("a") as file:
            file.write(f"{(filesystem.decode(), ' '.join(words), attributes)!r}\n")
        return mount.new_mount(b"tmpfs", (), attributes & ~RDONLY)

    def requests(self) -> list[MountRequest]:
        """What has been asked for so far."""
        return [MountRequest(*ast.literal_eval(line)) for line in self._notes.read_text().splitlines()]
