"""A share whose device is plugged in a moment before it is mounted: sysfs is made of files, and mounts are only noted."""

import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent import loop
from agent.device.watch import DeviceWatch
from agent.errors import StepFailed
from agent.storage import share
from agent.storage.driver import Context
from innkeeper.wire.pb.agent_pb2 import Storage

STORAGE = Storage(driver="virtio-fs", source="share0", fstype="virtiofs", mount_point="/run/share0")


class Kernel:
    """Knows the tags in `tags`. Before 6.9 it shows none of them in sysfs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, lists: bool) -> None:
        self.tags: list[str] = []
        self.mounts: list[tuple[str, str]] = []
        self.attempts = 0
        self._shares = folder / "fs/virtiofs"
        if lists:
            self._shares.mkdir(parents=True)
        self.watch = DeviceWatch(hotplug_timeout=5, sys_root=str(folder))
        monkeypatch.setattr(share, "mount_in_worker", self._mount)

    def plug(self, tag: str) -> None:
        self.tags.append(tag)
        if self._shares.exists():
            folder = self._shares / str(len(self.tags))
            folder.mkdir()
            (folder / "tag").write_text(f"{tag}\n")
        self.watch.announce("add")

    async def _mount(self, filesystem: str, source: str, mount_point: str, options: object) -> "Callable[[], Awaitable[None]]":
        self.attempts += 1
        if filesystem == "virtiofs" and source not in self.tags:
            raise StepFailed(f"mount {mount_point}", "Invalid argument", errno.EINVAL)
        self.mounts.append((filesystem, source))

        async def detach() -> None:
            self.mounts.remove((filesystem, source))

        return detach

    def attach(self, storage: Storage = STORAGE) -> Any:
        return share.attach(storage, Context(self.watch))


@pytest.fixture(params=[True, False], ids=["6.9", "older"])
def kernel(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(tmp_path, monkeypatch, lists=request.param)


def test_a_share_that_is_there_is_mounted_at_once(kernel: Kernel) -> None:
    kernel.plug("share0")
    loop.run(kernel.attach())
    assert (kernel.mounts, kernel.attempts) == ([("virtiofs", "share0")], 1)


def test_a_share_that_comes_later(kernel: Kernel) -> None:
    async def main() -> None:
        waiting = loop.spawn(kernel.attach(), name="mount")
        await loop.sleep(0)
        kernel.plug("another")
        await loop.sleep(0)
        assert not waiting.done
        kernel.plug("share0")
        await waiting.wait()

    loop.run(main())
    assert kernel.mounts == [("virtiofs", "share0")]


def test_a_share_that_does_not_come(kernel: Kernel) -> None:
    kernel.watch.hotplug_timeout = 0.01
    expected = (TimeoutError, r"virtio-fs share share0 did not appear within 0\.01 s")
    error, message = expected if kernel.watch.has("/fs/virtiofs") else (StepFailed, "mount /run/share0: Invalid argument")
    with pytest.raises(error, match=message):
        loop.run(kernel.attach())
    assert kernel.mounts == []


def test_another_failure_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise StepFailed("mount /run/share0", "No such device", errno.ENODEV)

    kernel = Kernel(tmp_path, monkeypatch, lists=False)
    monkeypatch.setattr(share, "mount_in_worker", fail)
    with pytest.raises(StepFailed, match="No such device"):
        loop.run(kernel.attach())


def test_a_slow_mount_is_not_cut_short(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit is that of the device. The host's daemon may take longer for its first answer."""

    async def slow(*_: object) -> str:
        await loop.sleep(0.05)
        return "detach"

    kernel.plug("share0")
    kernel.watch.hotplug_timeout = 0.01
    monkeypatch.setattr(share, "mount_in_worker", slow)
    assert loop.run(kernel.attach()) == "detach"


def test_an_event_during_an_attempt_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(tmp_path, monkeypatch, lists=False)

    async def plugged_meanwhile(*_: object) -> str:
        if kernel.tags:
            return "detach"
        kernel.plug("share0")
        raise StepFailed("mount /run/share0", "Invalid argument", errno.EINVAL)

    monkeypatch.setattr(share, "mount_in_worker", plugged_meanwhile)
    assert loop.run(kernel.attach()) == "detach"


def test_9p_is_mounted_at_once(kernel: Kernel) -> None:
    loop.run(kernel.attach(Storage(driver="9p", source="share0", fstype="9p", mount_point="/run/share0")))
    assert kernel.mounts == [("9p", "share0")]
