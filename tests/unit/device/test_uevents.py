"""The kernel's device events, and waiting for one."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import loop
from agent.device import lookup, uevent
from agent.device.watch import DeviceWatch
from agent.errors import Refused
from agent.loop.task import running_loop

DISK = "/devices/pci0000:00/0000:00:02.0/0000:01:01.0/virtio3/block/vdb"
DATAGRAM = (
    f"add@{DISK}\0ACTION=add\0DEVPATH={DISK}\0SUBSYSTEM=block\0MAJOR=254\0MINOR=16\0DEVNAME=vdb\0DEVTYPE=disk\0SEQNUM=1234\0".encode()
)


def test_parse() -> None:
    assert uevent.parse(DATAGRAM) == "add"


def test_a_device_without_node() -> None:
    assert uevent.parse(b"add@/devices/x/net/eth0\0ACTION=add\0DEVPATH=/devices/x/net/eth0\0SUBSYSTEM=net\0INTERFACE=eth0\0") == "add"


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\0",
        DATAGRAM[:-1],
        b"libudev\0\xfe\xed\xca\xfe",
        b"add@/x\0ACTION=add\0",
        b"add@/x\0DEVPATH=/x\0",
        b"add@/x\0ACTION=add\0DEVPATH=x\0",
        b"add@/x\0ACTION=add\0DEVPATH=/x\0noequals\0",
    ],
)
def test_what_is_no_event(datagram: bytes) -> None:
    assert uevent.parse(datagram) is None


@given(st.binary(max_size=300))
def test_no_datagram_is_too_strange(datagram: bytes) -> None:
    action = uevent.parse(datagram)
    assert action is None or action


def _machine(tmp_path: Path) -> DeviceWatch:
    """A sysfs and a /dev made of files; the node stands for any character device, as only root can make one."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "sys/class/block").mkdir(parents=True)
    (tmp_path / "sys/devices/pci0000:00/0000:00:02.0/pci_bus/0000:01").mkdir(parents=True)
    return DeviceWatch(hotplug_timeout=5, sys_root=str(tmp_path / "sys"), dev_root=str(tmp_path / "dev"))


def _plug(watch: DeviceWatch) -> None:
    disk = Path(watch.sys_root + DISK)
    disk.mkdir(parents=True)
    null = os.stat("/dev/null").st_rdev
    (disk / "dev").write_text(f"{os.major(null)}:{os.minor(null)}\n")
    Path(watch.dev_root, "vdb").symlink_to("/dev/null")


def test_a_disk_that_was_there_before(tmp_path: Path) -> None:
    watch = _machine(tmp_path)
    _plug(watch)
    assert loop.run(lookup.virtio_block(watch, "02/01")) == f"{watch.dev_root}/vdb"


def test_a_disk_that_comes_later(tmp_path: Path) -> None:
    watch = _machine(tmp_path)

    async def main() -> str:
        task = loop.spawn(lookup.virtio_block(watch, "02/01"), name="wait")
        await loop.sleep(0)
        assert not task.done
        watch.announce(uevent.parse(DATAGRAM))
        await loop.sleep(0)
        assert not task.done
        _plug(watch)
        watch.announce(uevent.parse(DATAGRAM.replace(b"=add", b"=remove")))
        await loop.sleep(0)
        assert not task.done
        watch.announce(uevent.parse(DATAGRAM))
        return await task.wait()

    assert loop.run(main()).endswith("/vdb")


def test_a_disk_after_lost_events(tmp_path: Path) -> None:
    watch = _machine(tmp_path)

    async def main() -> str:
        task = loop.spawn(lookup.virtio_block(watch, "02/01"), name="wait")
        await loop.sleep(0)
        _plug(watch)
        watch.announce(None)
        return await task.wait()

    assert loop.run(main()).endswith("/vdb")


def test_a_disk_that_does_not_come(tmp_path: Path) -> None:
    watch = _machine(tmp_path)
    watch.hotplug_timeout = 0.01
    with pytest.raises(TimeoutError, match=r"block device at PCI path 02/01 did not appear within 0\.01 s"):
        loop.run(lookup.virtio_block(watch, "02/01"))


def test_a_node_of_another_device_is_not_taken(tmp_path: Path) -> None:
    watch = _machine(tmp_path)
    _plug(watch)
    node = Path(watch.dev_root, "vdb")
    node.unlink()
    node.touch()
    assert stat.S_ISREG(node.stat().st_mode)
    watch.hotplug_timeout = 0.01
    with pytest.raises(TimeoutError):
        loop.run(lookup.virtio_block(watch, "02/01"))


@pytest.mark.parametrize("source", ["/dev/../etc/passwd", "/dev/", "/dev", "/etc/passwd", "/dev//vda"])
def test_nodes_outside_of_dev_are_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(Refused, match="device node below /dev"):
        loop.run(lookup.virtio_block(_machine(tmp_path), source))


def test_a_network_interface_by_path(tmp_path: Path) -> None:
    watch = _machine(tmp_path)
    Path(watch.sys_root + "/devices/pci0000:00/0000:00:02.0/0000:01:05.0/virtio1/net/eth3").mkdir(parents=True)
    assert loop.run(lookup.net_device(watch, "02/05")) == "eth3"


def test_a_scsi_disk(tmp_path: Path) -> None:
    watch = _machine(tmp_path)
    for host in ("host0", "host1"):
        (tmp_path / "sys/class/scsi_host" / host).mkdir(parents=True)
    disk = tmp_path / "sys/class/block/vdb"
    disk.mkdir()
    null = os.stat("/dev/null").st_rdev
    (disk / "dev").write_text(f"{os.major(null)}:{os.minor(null)}\n")
    (tmp_path / "dev/vdb").symlink_to("/dev/null")
    for address in ("1:0:2:1", "1:0:2:11", "1:0:12:1"):
        name = "vdb" if address == "1:0:2:1" else "other"
        (tmp_path / "sys/class/scsi_device" / address / "device/block" / name).mkdir(parents=True)
    assert loop.run(lookup.scsi_block(watch, "2:1")).endswith("/vdb")
    assert (tmp_path / "sys/class/scsi_host/host1/scan").read_text() == "0 2 1"


def test_a_watch_that_is_closed_and_opened_again_at_once() -> None:
    """The new socket may have the number of the old one, whose listener has not run yet."""

    async def main() -> int:
        watch = DeviceWatch()
        for _ in range(3):
            watch.start()
            await loop.sleep(0)
            watch.close()
            watch.start()
            await loop.sleep(0)
            await loop.sleep(0)
            watch.close()
            watch.close()
        await loop.sleep(0)
        return len(running_loop().tasks)

    before = os.listdir("/proc/self/fd")
    assert loop.run(main()) == 1
    assert os.listdir("/proc/self/fd") == before
