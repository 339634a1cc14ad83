"""Devices that the host passes to a container.

The specification names them by the host's major and minor numbers. Each device is looked up in the
guest, and the specification is rewritten with the guest's numbers.
"""

import os
import stat
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.device import vfio
from agent.device.lookup import named_block, scsi_block, virtio_block
from agent.errors import Refused, StepFailed, Unimplemented

if TYPE_CHECKING:
    from agent.container.spec.reader import Document
    from agent.device.watch import DeviceWatch
    from innkeeper.wire.pb.agent_pb2 import Device

ABSENT = {
    "vfio-ap": "adjunct processors are s390x's",
    "vfio-ap-cold": "adjunct processors are s390x's",
    "blk-ccw": "the channel subsystem is s390x's",
}
"""Device types that Kata's protocol defines and this agent does not implement -> reason."""
_NODE_TYPES = {stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p"}


@dataclass(frozen=True, slots=True)
class DeviceUpdate:
    """The guest's device node for an entry of linux.devices.

    `path` is the new path of the entry, or "" to keep its path.
    """

    container_path: str
    node: str
    path: str = ""


@dataclass(slots=True)
class GuestDevices:
    """The result of `find`. `addresses` maps PCI addresses on the host to those in the guest."""

    updates: list[DeviceUpdate] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)


async def find(requests: "Iterable[Device]", devices: "DeviceWatch") -> GuestDevices:
    """Wait for each device and return what was found.

    Raises Refused for a malformed request, Unimplemented for a type in ABSENT, and StepFailed if a
    device does not appear in time.
    """
    found = GuestDevices()
    for device in requests:
        if device.type in ABSENT:
            raise Unimplemented(f"devices.type: {device.type} is not served: {ABSENT[device.type]}")
        handler = TYPES.get(device.type)
        if handler is None:
            raise Refused("devices.type", f"{device.type[:64]!r} is unknown")
        if not device.container_path or not (device.id or device.vm_path):
            raise Refused("devices", f"{device.type}: container_path, and id or vm_path, are needed")
        if any(update.container_path == device.container_path for update in found.updates):
            raise Refused("devices.container_path", f"{device.container_path} is given twice")
        try:
            await handler(device, devices, found)
        except TimeoutError as error:
            raise StepFailed("device", str(error)) from None
    return found


async def _virtio(device: "Device", devices: "DeviceWatch", found: GuestDevices) -> None:
    found.updates.append(DeviceUpdate(device.container_path, await virtio_block(devices, device.id or device.vm_path, "devices.id")))


async def _named(device: "Device", devices: "DeviceWatch", found: GuestDevices) -> None:
    found.updates.append(DeviceUpdate(device.container_path, await named_block(devices, device.vm_path or device.id, "devices.vm_path")))


async def _scsi(device: "Device", devices: "DeviceWatch", found: GuestDevices) -> None:
    found.updates.append(DeviceUpdate(device.container_path, await scsi_block(devices, device.id, "devices.id")))


async def _vfio_passthrough(device: "Device", devices: "DeviceWatch", found: GuestDevices) -> None:
    """Bind a PCI device to vfio-pci, for a program in the container to drive.

    The container gets the node of the IOMMU group, whose number is different in the guest.
    """
    node = await vfio.take_group(devices, await _addresses(device, devices, found))
    found.updates.append(DeviceUpdate(device.container_path, node, node))


async def _addresses(device: "Device", devices: "DeviceWatch", found: GuestDevices) -> list[str]:
    """Return the guest's addresses of the device's PCI functions, and record them in `found`."""
    functions = [vfio.parse_option(option) for option in device.options]
    if not functions:
        raise Refused("devices.options", f"{device.type} {device.id}: no PCI function is given")
    addresses = []
    for function in functions:
        addresses.append(await vfio.address(devices, function.path))
        found.addresses[function.host] = addresses[-1]
    return addresses


TYPES: dict[str, Callable[..., Awaitable[object]]] = {
    "blk": _virtio,
    "mmioblk": _named,
    "scsi": _scsi,
    "nvdimm": _named,
    "vfio-pci-gk": _addresses,  # the guest's kernel drives it: only its PCI address is translated
    "vfio-pci": _vfio_passthrough,
}


def apply(document: "Document", found: GuestDevices) -> "Document":
    """Return the document with the guest's device numbers in linux.devices and the device rules.

    Raises Refused for a device that the document does not list, and for two with one host number:
    their rules could not be told apart.
    """
    linux = dict(document["linux"])
    listed: list[dict[str, Any]] = [dict(entry) for entry in linux.get("devices", ())]
    resources = dict(linux.get("resources", {}))
    rules: list[dict[str, Any]] = [dict(rule) for rule in resources.get("devices", ())]
    replaced: dict[tuple[str, int, int], tuple[int, int]] = {}
    for update in found.updates:
        entry = next((entry for entry in listed if entry.get("path") == update.container_path), None)
        if entry is None:
            raise Refused("linux.devices", f"Missing devices in OCI spec: {update.container_path}")
        kind, major, minor = device_numbers(update.node)
        host = entry.get("type", ""), entry.get("major", 0), entry.get("minor", 0)
        if host in replaced:
            raise Refused("linux.devices", f"two devices have the host's number {host[1]}:{host[2]}")
        replaced[host] = major, minor
        entry |= {"path": update.path or entry["path"], "type": kind, "major": major, "minor": minor}
    for rule in rules:
        guest = replaced.get((rule.get("type", ""), rule.get("major", -1), rule.get("minor", -1)))
        if guest is not None:
            rule["major"], rule["minor"] = guest
    for (kind, _, _), (major, minor) in replaced.items():
        rules.append({"allow": True, "type": kind, "major": major, "minor": minor, "access": "rwm"})
    resources["devices"] = rules
    return {**document, "linux": {**linux, "devices": listed, "resources": resources}}


def device_numbers(node: str) -> tuple[str, int, int]:
    """Return (type, major, minor) of a device node. The type is "" for any other file."""
    status = os.stat(node)
    return _NODE_TYPES.get(stat.S_IFMT(status.st_mode), ""), os.major(status.st_rdev), os.minor(status.st_rdev)


def translate(environment: "Iterable[str]", addresses: dict[str, str]) -> list[str]:
    """Return the environment with the guest's PCI addresses in the PCIDEVICE_* variables.

    These hold a list of addresses, and those named *_INFO hold JSON that contains addresses. Raises
    Refused for an address of a list that belongs to no passed device.
    """
    return [_translate(entry, addresses) if entry.startswith("PCIDEVICE_") else entry for entry in environment]


def _translate(entry: str, addresses: dict[str, str]) -> str:
    name, _, value = entry.partition("=")
    if name.endswith("_INFO"):
        parts = value.split('"')
        return f"{name}={chr(34).join(addresses.get(part, part) for part in parts)}"
    unknown = [word for word in value.split(",") if word and word not in addresses]
    if unknown:
        raise Refused("process.env", f"{name}: {unknown[0][:64]!r} is the address of no device that was passed on")
    return f"{name}={','.join(addresses.get(word, '') for word in value.split(','))}"
