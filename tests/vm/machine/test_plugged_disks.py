"""Disks that are plugged into a running VM: a block device of the host, as devmapper gives one, and a file."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.client import Agent, connect
from innkeeper.engine.host import virtual_machine
from innkeeper.errors import InnkeeperError
from innkeeper.vm import AGENT_PORT, Disk
from innkeeper.wire.pb import agent_pb2
from tests.needs import needs
from tests.vm.guest import vm_config

pytestmark = [pytest.mark.vm, pytest.mark.root, needs("root", "loop", "mke2fs")]
TIMEOUT = 120
FOLDER = "/run/kata-containers/shared/containers/disk"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image, with a comma"
    with path.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", path], check=True)
    return path


@pytest.fixture
def device(image: Path) -> Iterator[Path]:
    words = ["losetup", "--find", "--show", str(image)]
    path = Path(subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip())
    yield path
    subprocess.run(["losetup", "--detach", path], check=True)


def test_plug_and_unplug(device: Path, image: Path) -> None:
    """What the guest writes is on the disk. An address is free again once its disk was taken out."""
    with virtual_machine(vm_config(machine_type="microvm", plugs_disks=True)) as vm:
        vm.start()
        vm.wait_ready(TIMEOUT)
        assert vm.scsi is not None
        with pytest.raises(InnkeeperError, match="blockdev-add"):
            vm.scsi.plug(Disk(image.with_name("none")))
        assert vm.scsi.plug(Disk(vm.config.root, read_only=True)) == "0:0"
        address = vm.scsi.plug(Disk(device))
        vm.scsi.unplug("0:0")
        assert vm.scsi.plug(Disk(vm.config.root, read_only=True)) == "0:0"
        with connect(vm.address(AGENT_PORT), TIMEOUT) as client:
            agent = Agent(client, TIMEOUT)
            storage = agent_pb2.Storage(driver="scsi", source=address, fstype="ext4", mount_point=FOLDER)
            agent.create_sandbox(agent_pb2.CreateSandboxRequest(sandbox_id="plugged", storages=[storage]))
            agent.copy_file(agent_pb2.CopyFileRequest(path=f"{FOLDER}/file", data=b"text", file_size=4, file_mode=0o100644))
            agent.destroy_sandbox()
        vm.stop(TIMEOUT)
    read = subprocess.run(["debugfs", "-R", "cat /file", device], check=True, capture_output=True)
    assert read.stdout == b"text"
