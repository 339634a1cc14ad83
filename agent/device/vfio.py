"""PCI devices of the host that are passed to the guest (VFIO).

Finds their addresses in the guest, and binds them to vfio-pci so that a program in a container can
drive them.
"""

import os
from pathlib import Path
from typing import NamedTuple

from agent.device import pci
from agent.device.watch import DeviceWatch
from agent.errors import Refused, WrongState
from agent.worker import run_in_worker

FIELD = "devices.options"
DRIVER = "vfio-pci"


class Function(NamedTuple):
    """A PCI function: its address on the host and its PCI path in the guest."""

    host: str
    path: str


def parse_option(option: str) -> Function:
    """Parse an option of the form `0000:3b:02.1=02/01`. Raises Refused."""
    host, equals, path = option.partition("=")
    if not equals or not pci.is_function(host):
        raise Refused(FIELD, f"{option[:64]!r} is not HOST-ADDRESS=PCI-PATH")
    pci.parse(path, FIELD)
    return Function(host, path)


async def address(devices: DeviceWatch, path: str) -> str:
    """Return the guest's address of the device at a PCI path, once it has appeared.

    Raises TimeoutError and Refused.
    """
    parsed = pci.parse(path, FIELD)
    return os.path.basename(await devices.wait_for(lambda: pci.resolve(parsed, devices.sys_root), f"PCI device at {path}"))


async def take_group(devices: DeviceWatch, addresses: list[str]) -> str:
    """Bind PCI functions to vfio-pci and return the node of their IOMMU group (/dev/vfio/N).

    Raises Refused for functions of different groups, WrongState if the kernel lacks vfio-pci or the
    guest has no IOMMU, StepFailed, and TimeoutError if the node does not appear.
    """
    groups = {}
    for bdf in addresses:
        await run_in_worker(lambda bdf=bdf: _rebind(devices.sys_root, bdf), f"vfio-pci for {bdf}")  # type: ignore[misc]
        groups[bdf] = _group(devices.sys_root, bdf)
    if len(set(groups.values())) != 1:
        raise Refused(FIELD, f"functions of several IOMMU groups: {', '.join(f'{bdf} of {group}' for bdf, group in groups.items())}")
    number = groups[addresses[0]]
    return await devices.wait_for(lambda: devices.device_node(f"/class/vfio/{number}", f"vfio/{number}"), f"/dev/vfio/{number}")


def _rebind(sys_root: str, bdf: str) -> None:
    """Unbind a function from its driver and bind it to vfio-pci. Runs in a worker."""
    device = f"{sys_root}/bus/pci/devices/{bdf}"
    if not os.path.isdir(f"{sys_root}/bus/pci/drivers/{DRIVER}"):
        raise WrongState(f"this guest's kernel has no {DRIVER}")
    driver = os.path.basename(os.path.realpath(f"{device}/driver")) if os.path.exists(f"{device}/driver") else ""
    if driver == DRIVER:
        return
    # First the override: the probe below must match vfio-pci alone, not the driver just unbound.
    Path(f"{device}/driver_override").write_text(DRIVER)
    if driver:
        Path(f"{device}/driver/unbind").write_text(bdf)
    Path(f"{sys_root}/bus/pci/drivers_probe").write_text(bdf)


def _group(sys_root: str, bdf: str) -> str:
    try:
        return os.path.basename(os.readlink(f"{sys_root}/bus/pci/devices/{bdf}/iommu_group"))
    except FileNotFoundError:
        raise WrongState(f"{bdf} has no IOMMU group: this guest has no IOMMU") from None
