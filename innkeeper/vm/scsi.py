"""Disks that are plugged into a running VM: on a virtio-scsi bus, which needs neither PCI nor ACPI.

A pod's VM has booted before the roots of its containers are known. The bus is one virtio device,
whatever number of disks it has.
"""

import threading

from innkeeper.errors import InnkeeperError
from innkeeper.vm import qemu
from innkeeper.vm.config import Disk
from innkeeper.vm.qmp import Qmp

LIMIT = 255
"""The targets of a virtio-scsi bus. Each disk is one, as its logical unit 0."""


class ScsiBus:
    """The disks on the bus of one VM.

    They are plugged by QEMU's control connection, of which this must be the only user. Threads may
    share it.
    """

    def __init__(self, qmp: Qmp) -> None:
        self._qmp = qmp
        self._lock = threading.Lock()
        self._used: set[int] = set()

    def plug(self, disk: Disk) -> str:
        """Plug a disk.

        Return its address, `ID:LUN`, which the guest finds it by. Raises InnkeeperError.
        """
        with self._lock:
            number = next((number for number in range(LIMIT) if number not in self._used), None)
            if number is None:
                raise InnkeeperError(f"{disk.path}: a VM takes {LIMIT} disks, and has them already")
            self._qmp.execute("blockdev-add", {**qemu.disk_node(number, disk, qemu.disk_file(disk)), "node-name": _name(number)})
            place = {"id": _device(number), "bus": f"{qemu.SCSI}.0", "scsi-id": number, "lun": 0}
            try:
                self._qmp.execute("device_add", {"driver": "scsi-hd", "drive": _name(number), **place})
            except InnkeeperError:
                self._qmp.execute("blockdev-del", {"node-name": _name(number)})
                raise
            self._used.add(number)
        return f"{number}:0"

    def unplug(self, address: str) -> None:
        """Take out a disk that the guest does not use any more, and close its file.

        Raises InnkeeperError.
        """
        number = int(address.partition(":")[0])
        with self._lock:
            self._qmp.execute("device_del", {"id": _device(number)})
            while self._qmp.event("DEVICE_DELETED").get("data", {}).get("device") != _device(number):
                pass  # QEMU tells of each part of a device
            self._qmp.execute("blockdev-del", {"node-name": _name(number)})
            self._used.discard(number)


def _name(number: int) -> str:
    return f"plugged{number}"


def _device(number: int) -> str:
    return f"plugged{number}-device"
