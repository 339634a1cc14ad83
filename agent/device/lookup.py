"""Finding the device node of a disk, or a network interface, by each kind of name that a shim uses.

All functions wait until the device has appeared, and raise TimeoutError if it does not.
"""

import os
from pathlib import Path

from agent.device import pci
from agent.device.watch import DeviceWatch
from agent.errors import Refused
from agent.worker import run_in_worker

FIELD = "storage.source"
"""The default field that an error names."""
SHARES = "/fs/virtiofs"
"""The directory of sysfs in which Linux lists virtio-fs devices, since 6.9."""


async def virtio_block(devices: DeviceWatch, source: str, field: str = FIELD) -> str:
    """Return the node of a virtio disk. `source` is a PCI path or the node itself (/dev/vdX).

    Raises Refused for any other name.
    """
    if not source.startswith("/"):
        path = pci.parse(source, field)
        return await devices.wait_for(lambda: _virtio_disk(devices, path), f"block device at PCI path {source}")
    return await named_block(devices, source, field)


async def named_block(devices: DeviceWatch, source: str, field: str = FIELD) -> str:
    """Return the node `source`, once the disk has appeared. Raises Refused if not below /dev."""
    name = source.removeprefix("/dev/")
    if not source.startswith("/dev/") or os.path.normpath(source) != source or "\0" in source:
        raise Refused(field, f"{source!r} is no device node below /dev")
    directory = f"/class/block/{name.replace('/', '!')}"
    return await devices.wait_for(lambda: devices.node(directory), f"block device {source}")


async def scsi_block(devices: DeviceWatch, source: str, field: str = FIELD) -> str:
    """Return the node of a SCSI disk. `source` has the form `ID:LUN`.

    Every SCSI host adapter is first made to scan that address. Raises Refused for another form.
    """
    identifier, colon, lun = source.partition(":")
    if not colon or not identifier.isdecimal() or not lun.isdecimal():
        raise Refused(field, f"{source!r} is not ID:LUN of a SCSI disk")
    scans = [f"{devices.sys_root}/class/scsi_host/{host}/scan" for host in devices.names("/class/scsi_host")]
    await run_in_worker(lambda: _scan(scans, f"0 {identifier} {lun}"), "scan of SCSI hosts")
    return await devices.wait_for(lambda: _scsi_disk(devices, f":0:{identifier}:{lun}"), f"SCSI disk {source}")


async def virtio_share(devices: DeviceWatch, tag: str) -> str:
    """Return the directory in sysfs of the virtio-fs device with this tag, once it is there."""
    return await devices.wait_for(lambda: _share(devices, tag), f"virtio-fs share {tag}")


async def net_device(devices: DeviceWatch, text: str) -> str:
    """Return the current name of the network interface at a PCI path. Waits for it."""
    path = pci.parse(text, "interface.devicePath")
    return await devices.wait_for(lambda: _net_name(devices, path), f"network interface at PCI path {text}")


async def partition(devices: DeviceWatch, node: str, number: int) -> str:
    """Return the node of a partition, once the kernel has read the disk's partition table.

    `node` is the node of the whole disk.
    """
    disk = os.path.basename(node)
    name = f"{disk}{'p' if disk[-1].isdecimal() else ''}{number}"
    return await devices.wait_for(lambda: devices.node(f"/class/block/{name}"), f"partition {number} of {node}")


def _scan(files: list[str], target: str) -> None:
    """Scan `target` on SCSI hosts, in a worker: the write blocks until the disk has answered."""
    for path in files:
        Path(path).write_text(target)


def _virtio_disk(devices: DeviceWatch, path: pci.PciPath) -> str | None:
    directory = pci.resolve(path, devices.sys_root)
    if directory is None:
        return None
    for child in devices.names(directory):
        if child.startswith("virtio") and child[len("virtio") :].isdecimal():
            disks = devices.names(f"{directory}/{child}/block")
            if len(disks) == 1:
                return devices.node(f"{directory}/{child}/block/{disks[0]}")
    return None


def _share(devices: DeviceWatch, tag: str) -> str | None:
    for number in devices.names(SHARES):
        directory = f"{devices.sys_root}{SHARES}/{number}"
        try:
            with open(f"{directory}/tag", encoding="utf-8", errors="replace") as file:
                if file.read().removesuffix("\n") == tag:
                    return directory
        except FileNotFoundError:
            continue  # it is being removed
    return None


def _net_name(devices: DeviceWatch, path: pci.PciPath) -> str | None:
    directory = pci.resolve(path, devices.sys_root)
    if directory is None:
        return None
    folders = [directory, *(f"{directory}/{child}" for child in devices.names(directory) if child.startswith("virtio"))]
    return next((name for folder in folders for name in devices.names(f"{folder}/net")), None)


def _scsi_disk(devices: DeviceWatch, ending: str) -> str | None:
    for address in devices.names("/class/scsi_device"):
        if address.endswith(ending):
            for disk in devices.names(f"/class/scsi_device/{address}/device/block"):
                return devices.node(f"/class/block/{disk}")
    return None
