"""Storages with real mounts, each test in a mount namespace of its own."""

import os
import stat
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent.device.watch import DeviceWatch
from agent.errors import AgentError, Refused, StepFailed
from agent.storage.manager import StorageManager, mount_storages
from agent.storage.mounted import mounted_type
from innkeeper.wire.pb.agent_pb2 import FSGroup, Storage
from innkeeper.wire.pb.types_pb2 import OnRootMismatch
from tests.forked import CLONE_NEWNS, forked_loop

pytestmark = pytest.mark.root

Body = Callable[[StorageManager], Coroutine[Any, Any, None]]


def in_own_mounts(body: Body) -> None:
    async def main() -> None:
        await body(StorageManager(DeviceWatch(hotplug_timeout=0.2)))

    forked_loop(main, unshare=CLONE_NEWNS)


def tmpfs(point: Path, *options: str, **fields: Any) -> Storage:
    return Storage(driver="ephemeral", source="tmpfs", fstype="tmpfs", mount_point=str(point), options=options, **fields)


def mount_options(point: Path) -> str:
    lines = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split()[4] == str(point)]
    return f"{lines[-1].split()[5]} {lines[-1].split()[-1]}"


async def error_of(coroutine: Coroutine[Any, Any, object]) -> AgentError:
    with pytest.raises(AgentError) as caught:
        await coroutine
    return caught.value


def test_tmpfs_keeps_its_options(tmp_path: Path) -> None:
    async def body(table: StorageManager) -> None:
        point = tmp_path / "shm"
        await table.acquire(tmpfs(point, "noexec", "nosuid", "nodev", "mode=1777", "size=64k"))
        words = mount_options(point)
        assert all(word in words for word in ("noexec", "nosuid", "nodev", "size=64k"))
        assert stat.S_IMODE(point.stat().st_mode) == 0o1777
        with pytest.raises(OSError, match="No space left"):
            (point / "file").write_bytes(bytes(70000))

    in_own_mounts(body)
    assert not (tmp_path / "shm").is_mount()


def test_tmpfs_fsgid(tmp_path: Path) -> None:
    async def body(table: StorageManager) -> None:
        await table.acquire(tmpfs(tmp_path / "v", "fsgid=4321", "mode=0770"))
        status = (tmp_path / "v").stat()
        assert (status.st_gid, stat.S_IMODE(status.st_mode)) == (4321, 0o2770)

    in_own_mounts(body)


def test_bad_tmpfs_option_leaves_nothing(tmp_path: Path) -> None:
    async def body(table: StorageManager) -> None:
        with pytest.raises(OSError, match="nonsense"):
            await table.acquire(tmpfs(tmp_path / "v", "nonsense=1"))
        assert mounted_type(str(tmp_path / "v")) is None
        assert table.users(str(tmp_path / "v")) == 0

    in_own_mounts(body)


def test_counting(tmp_path: Path) -> None:
    async def body(table: StorageManager) -> None:
        request = tmpfs(tmp_path / "v")
        first = await mount_storages(table, [request])
        (tmp_path / "v/file").write_text("kept")
        second = await mount_storages(table, [request])
        assert table.users(str(tmp_path / "v")) == 2
        await table.release(first)
        assert (tmp_path / "v/file").read_text() == "kept"
        await table.release(second)
        assert not (tmp_path / "v").exists()
        assert table.users(str(tmp_path / "v")) == 0

    in_own_mounts(body)


def test_shared_stays_until_the_end(tmp_path: Path) -> None:
    async def body(table: StorageManager) -> None:
        points = await mount_storages(table, [tmpfs(tmp_path / "v", shared=True)])
        table.commit(points)
        await table.release(points)
        assert (tmp_path / "v").is_mount()
        await table.clear()
        assert not (tmp_path / "v").exists()

    in_own_mounts(body)


def test_failure_takes_earlier_ones_away(tmp_path: Path) -> None:
    async def body(table: StorageManager) -> None:
        requests = [tmpfs(tmp_path / "a"), Storage(driver="nope", mount_point=str(tmp_path / "b"))]
        error = await error_of(mount_storages(table, requests))
        assert "Failed to find the storage handler nope" in str(error)
        assert not (tmp_path / "a").exists()

    in_own_mounts(body)


def overlay(point: Path, *options: str, **fields: Any) -> Storage:
    return Storage(driver="overlayfs", source="overlay", fstype="overlay", mount_point=str(point), options=options, **fields)


def test_overlay_of_two_layers_with_created_directories(tmp_path: Path) -> None:
    async def body(table: StorageManager) -> None:
        await table.acquire(tmpfs(tmp_path / "disk"))
        layers = [tmp_path / "disk" / name for name in ("upper:most", "l2")]
        for layer in layers:
            layer.mkdir()
            (layer / "who").write_text(layer.name)
            (layer / layer.name).touch()
        lower = ":".join(str(layer).replace("upper:", "upper\\:") for layer in layers)
        made = [f"io.katacontainers.volume.overlayfs.create_directory={tmp_path}/disk/c/{name}" for name in ("upper", "work")]
        options = (f"lowerdir={lower}", f"upperdir={tmp_path}/disk/c/upper", f"workdir={tmp_path}/disk/c/work", "index=off")
        await table.acquire(overlay(tmp_path / "root", *options, driver_options=made))
        root = tmp_path / "root"
        assert (root / "who").read_text() == "upper:most"
        assert {path.name for path in root.iterdir()} == {"who", "upper:most", "l2"}
        (root / "new").write_text("x")
        assert (tmp_path / "disk/c/upper/new").read_text() == "x"
        await table.release([str(root), str(tmp_path / "disk")])
        assert not root.exists()

    in_own_mounts(body)


def test_overlay_in_memory_needs_a_container(tmp_path: Path) -> None:
    async def body(table: StorageManager) -> None:
        request = overlay(tmp_path / "root", f"lowerdir={tmp_path}", "io.katacontainers.fs-opt.overlay-rw")
        assert "needs a container" in str(await error_of(table.acquire(request)))

    in_own_mounts(body)


def test_long_stack_of_layers(tmp_path: Path) -> None:
    async def body(table: StorageManager) -> None:
        layers = [tmp_path / f"layer{number:030}" for number in range(12)]
        for layer in layers:
            layer.mkdir()
            (layer / layer.name).touch()
        await table.acquire(overlay(tmp_path / "root", "lowerdir=" + ":".join(map(str, layers))))
        assert len(list((tmp_path / "root").iterdir())) == 12

    in_own_mounts(body)


def bind(source: Path, point: Path, *options: str) -> Storage:
    return Storage(driver="bind", source=str(source), fstype="bind", mount_point=str(point), options=options)


def test_bind_of_a_file_read_only(tmp_path: Path) -> None:
    async def body(table: StorageManager) -> None:
        (tmp_path / "file").write_text("text")
        await table.acquire(bind(tmp_path / "file", tmp_path / "deep/er/file", "bind", "ro"))
        assert (tmp_path / "deep/er/file").read_text() == "text"
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "deep/er/file").write_text("changed")

    in_own_mounts(body)


def test_recursive_bind(tmp_path: Path) -> None:
    async def body(table: StorageManager) -> None:
        await table.acquire(tmpfs(tmp_path / "a/below"))
        await table.acquire(bind(tmp_path / "a", tmp_path / "plain", "bind"))
        await table.acquire(bind(tmp_path / "a", tmp_path / "all", "rbind", "nosuid"))
        assert not (tmp_path / "plain/below").is_mount()
        assert (tmp_path / "all/below").is_mount()
        assert "nosuid" in mount_options(tmp_path / "all/below")

    in_own_mounts(body)


@pytest.mark.parametrize("where", ["source", "mount_point", "parent"])
def test_symbolic_links_are_not_followed(tmp_path: Path, where: str) -> None:
    async def body(table: StorageManager) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("/etc")
        requests = {
            "source": bind(tmp_path / "link", tmp_path / "point"),
            "mount_point": bind(tmp_path / "real", tmp_path / "link"),
            "parent": tmpfs(tmp_path / "link/made"),
        }
        with pytest.raises((AgentError, OSError), match=r"symbolic links|Not a directory"):
            await table.acquire(requests[where])
        assert not Path("/etc/made").exists()

    in_own_mounts(body)


def test_local_directory(tmp_path: Path) -> None:
    async def body(table: StorageManager) -> None:
        request = Storage(
            driver="local", source="local", fstype="local", mount_point=str(tmp_path / "v"), options=["mode=0750", "fsgid=99"]
        )
        points = await mount_storages(table, [request])
        status = (tmp_path / "v").stat()
        assert (status.st_gid, stat.S_IMODE(status.st_mode)) == (99, 0o2750)
        (tmp_path / "v/file").touch()
        await table.release(points)
        assert (tmp_path / "v/file").exists()

    in_own_mounts(body)


def test_fs_group(tmp_path: Path) -> None:
    async def body(table: StorageManager) -> None:
        source = tmp_path / "source"
        (source / "sub").mkdir(parents=True)
        (source / "sub/file").touch(0o600)
        (source / "sub/link").symlink_to("/etc/passwd")
        before = os.stat("/etc/passwd")
        request = bind(source, tmp_path / "v", "bind")
        request.fs_group.CopyFrom(FSGroup(group_id=777))
        await table.acquire(request)
        file, directory = (source / "sub/file").stat(), (source / "sub").stat()
        assert (file.st_gid, stat.S_IMODE(file.st_mode)) == (777, 0o660)
        assert (directory.st_gid, stat.S_IMODE(directory.st_mode) & 0o2770) == (777, 0o2770)
        assert (source / "sub/link").lstat().st_gid == 777
        assert os.stat("/etc/passwd") == before

    in_own_mounts(body)


def test_fs_group_when_the_root_has_it_already(tmp_path: Path) -> None:
    async def body(table: StorageManager) -> None:
        source = tmp_path / "source"
        source.mkdir()
        (source / "file").touch(0o600)
        os.chown(source, -1, 777)
        source.chmod(0o2770)
        request = bind(source, tmp_path / "v", "bind")
        request.fs_group.CopyFrom(FSGroup(group_id=777, group_change_policy=OnRootMismatch))
        await table.acquire(request)
        assert (source / "file").stat().st_gid != 777

    in_own_mounts(body)


@pytest.mark.parametrize("point", ["relative", "/", "/tmp/../etc/x", "/tmp//x", "/tmp/./x", ""])
def test_mount_points_that_are_no_plain_paths(point: str) -> None:
    async def body(table: StorageManager) -> None:
        error = await error_of(table.acquire(Storage(driver="ephemeral", fstype="tmpfs", mount_point=point)))
        assert isinstance(error, Refused) and error.field == "storage.mount_point"

    in_own_mounts(body)


def test_disk_that_does_not_come(tmp_path: Path) -> None:
    async def body(table: StorageManager) -> None:
        error = await error_of(table.acquire(Storage(driver="blk", source="1e/1f", fstype="ext4", mount_point=str(tmp_path / "v"))))
        assert isinstance(error, StepFailed) and "PCI path 1e/1f did not appear" in str(error)
        assert not (tmp_path / "v").exists()

    in_own_mounts(body)


def test_unknown_driver_option_is_refused(tmp_path: Path) -> None:
    async def body(table: StorageManager) -> None:
        request = Storage(
            driver="blk", source="02/01", fstype="ext4", mount_point=str(tmp_path / "v"), driver_options=["encryption_key=ephemeral"]
        )
        assert "encryption_key is not supported by driver blk" in str(await error_of(table.acquire(request)))

    in_own_mounts(body)
