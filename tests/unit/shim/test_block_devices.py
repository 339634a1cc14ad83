"""Block devices of the host that become disks of a VM."""

from pathlib import Path
from typing import Any

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.shim import block_devices
from innkeeper.shim.block_devices import BlockDevice


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with one device, 0:0: the numbers that stat(2) gives for a file that is none."""
    folder = tmp_path / "sys" / "0:0"
    folder.mkdir(parents=True)
    (folder / "uevent").write_text("MAJOR=0\nMINOR=0\nDEVNAME=disk\nDEVTYPE=disk\n")
    (folder / "ro").write_text("0\n")
    (tmp_path / "disk").touch()
    monkeypatch.setattr(block_devices, "SYSFS", tmp_path / "sys")
    monkeypatch.setattr(block_devices, "DEV", tmp_path)
    return tmp_path / "disk"


def linux(access: str, **numbers: int) -> dict[str, Any]:
    entry = {"path": "/dev/xvda", "type": "b", "major": 0, "minor": 0, **numbers}
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "b", "major": 0, "minor": 0, "access": access}]
    return {"devices": [{"path": "/dev/null", "type": "c", "major": 1, "minor": 3}, entry], "resources": {"devices": rules}}


@pytest.mark.parametrize(("access", "read_only"), [("rwm", False), ("mr", True)])
def test_a_device_is_as_writable_as_its_rule(access: str, read_only: bool, disk: Path) -> None:
    assert block_devices.of(linux(access)) == (BlockDevice(disk, "/dev/xvda", read_only),)


def test_one_that_the_host_cannot_write_is_read_only(disk: Path) -> None:
    (block_devices.SYSFS / "0:0" / "ro").write_text("1\n")
    assert block_devices.of(linux("rwm")) == (BlockDevice(disk, "/dev/xvda", True),)


def test_one_that_is_not_there_is_refused(disk: Path) -> None:
    with pytest.raises(InnkeeperError, match=r"linux\.devices: /dev/xvda: the host has no block device 0:7"):
        block_devices.of(linux("rwm", minor=7))
    (block_devices.SYSFS / "0:0").rename(block_devices.SYSFS / "0:8")
    with pytest.raises(InnkeeperError, match=r"linux\.devices: /dev/xvda: .*/disk is not the block device 0:8"):
        block_devices.of(linux("rwm", minor=8))
