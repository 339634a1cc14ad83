"""Volumes whose changes programs want to hear of."""

import os
import stat
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent import loop
from agent.device.watch import DeviceWatch
from agent.errors import AgentError
from agent.storage import watchable
from agent.storage.manager import StorageManager
from agent.storage.mounted import mounted_type
from innkeeper.wire.pb.agent_pb2 import Storage
from tests.forked import CLONE_NEWNS, forked_loop

pytestmark = pytest.mark.root

Body = Callable[[StorageManager, Path, Path], Coroutine[Any, Any, None]]


def run(tmp_path: Path, body: Body) -> None:
    """`body` with a table, a source directory like a config map's, and the place of the copy."""
    source = tmp_path / "share/config"
    publish(source, "1", {"colour": "red", "size": "7"})

    async def main() -> None:
        watchable.INTERVAL = 0.02
        await body(StorageManager(DeviceWatch(hotplug_timeout=0.2)), source, tmp_path / "containers/watchable/config")

    forked_loop(main, unshare=CLONE_NEWNS)


def publish(source: Path, generation: str, files: dict[str, str]) -> None:
    """As the kubelet writes a volume: a directory of its own, a link to it that is exchanged, a link a file."""
    folder = source / f"..{generation}"
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
        os.chown(folder / name, 1000, 1001)
        (folder / name).chmod(0o640)
    (source / "..new").symlink_to(folder.name)
    old = (source / "..data").resolve() if (source / "..data").exists() else None
    (source / "..new").rename(source / "..data")
    for name in files:
        if not (source / name).is_symlink():
            (source / name).symlink_to(f"..data/{name}")
    if old is not None:
        for path in old.iterdir():
            path.unlink()
        old.rmdir()


def storage(source: Path, target: Path, **fields: Any) -> Storage:
    return Storage(driver="watchable-bind", source=str(source), fstype="bind", mount_point=str(target), **fields)


async def until(condition: Callable[[], bool]) -> None:
    with loop.timeout(20):
        while not condition():
            await loop.sleep(0.01)


def test_follows_its_source(tmp_path: Path) -> None:
    async def body(table: StorageManager, source: Path, target: Path) -> None:
        point = await table.acquire(storage(source, target))
        assert mounted_type(str(target.parent)) == "tmpfs"
        assert not target.is_mount()
        assert (target / "colour").read_text() == "red"
        status = (target / "colour").stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1000, 1001, 0o640)
        held = os.open(target, os.O_PATH)  # as a container's bind holds it
        publish(source, "2", {"colour": "blue", "weight": "3"})
        (source / "size").unlink()
        await until(lambda: sorted(os.listdir(f"/proc/self/fd/{held}")) == ["..2", "..data", "colour", "weight"])
        assert Path(f"/proc/self/fd/{held}/colour").read_text() == "blue"
        os.close(held)
        await table.release([point])
        assert mounted_type(str(target.parent)) is None
        assert not target.exists()
        assert (source / "colour").read_text() == "blue"

    run(tmp_path, body)


def test_one_file_is_rewritten_in_place(tmp_path: Path) -> None:
    async def body(table: StorageManager, source: Path, target: Path) -> None:
        file = source.parent / "hosts"
        file.write_text("127.0.0.1 localhost\n")
        point = await table.acquire(storage(file, target))
        held = os.open(target, os.O_RDONLY)
        file.write_text("127.0.0.1 localhost\n10.0.0.7 other\n")
        await until(lambda: b"other" in os.pread(held, 100, 0))
        os.close(held)
        await table.release([point])
        assert not target.exists()

    run(tmp_path, body)


def test_too_large_is_bound(tmp_path: Path) -> None:
    """From the start or by growing: then it is the host's own directory, without a copy."""

    async def body(table: StorageManager, source: Path, target: Path) -> None:
        other = target.with_name("other")
        first = await table.acquire(storage(source, target))
        (source / "big").write_bytes(bytes(watchable.LIMIT_BYTES + 1))
        await until(target.is_mount)
        assert (target / "big").stat().st_ino == (source / "big").stat().st_ino
        second = await table.acquire(storage(source, other))
        assert other.is_mount()
        await table.release([first, second])
        assert mounted_type(str(target.parent)) is None

    run(tmp_path, body)


def test_many_files_are_bound(tmp_path: Path) -> None:
    async def body(table: StorageManager, source: Path, target: Path) -> None:
        for number in range(watchable.LIMIT_FILES):
            (source / f"f{number}").touch()
        await table.acquire(storage(source, target))
        assert target.is_mount()
        await table.clear()

    run(tmp_path, body)


def test_refusals(tmp_path: Path) -> None:
    async def body(table: StorageManager, source: Path, target: Path) -> None:
        for wrong, reason in (
            (storage(source / "..data", target), "Too many levels of symbolic links"),
            (storage(source / "none", target), "No such file"),
            (storage(Path("/dev/null"), target), "neither a file nor a directory"),
            (storage(source, target, options=["size=3"]), "size makes no sense"),
            (storage(source, target, driver_options=["x=1"]), "x is not supported"),
        ):
            with pytest.raises(AgentError, match=reason):
                await table.acquire(wrong)
            assert table.users(str(target)) == 0
            assert mounted_type(str(target.parent)) is None

    run(tmp_path, body)
