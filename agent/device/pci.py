"""Kata's PCI paths, which give a device's position as slot numbers from the root bus down.

Bus numbers are not part of a path, because the guest's firmware or kernel assigns them and the host
does not know them. Numbers are hexadecimal:

* `02/03` is slot 3 behind the bridge in slot 2 of the root bus.
* `02.1` is function 1 of slot 2.
* In a path of three or more elements a first one of 0x20 or more is the number of a root complex
  (pxb-pcie).
"""

import os
from typing import NamedTuple

from agent.errors import Refused

FIRST_EXPANDER_BUS = 0x20
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


class Slot(NamedTuple):
    """A device and function number on a bus."""

    device: int
    function: int


class PciPath(NamedTuple):
    """A parsed path: the number of the root complex and one slot per bus below it."""

    root_complex: int
    slots: tuple[Slot, ...]

    def __str__(self) -> str:
        root = (f"{self.root_complex:02x}",) if self.root_complex else ()
        return "/".join(root + tuple(f"{s.device:02x}.{s.function}" if s.function else f"{s.device:02x}" for s in self.slots))


def parse(text: str, field: str = "PCI path") -> PciPath:
    """Parse a PCI path. Raises Refused, naming `field`."""
    elements = text.split("/")
    root_complex = 0
    if len(elements) >= 3 and _is_number(elements[0]) and int(elements[0], 16) >= FIRST_EXPANDER_BUS:
        root_complex = int(elements.pop(0), 16)
    return PciPath(root_complex, tuple(_slot(element, text, field) for element in elements))


def _slot(element: str, text: str, field: str) -> Slot:
    device, dot, function = element.partition(".")
    if not _is_number(device) or int(device, 16) > 0x1F or (dot and (len(function) != 1 or function not in "01234567")):
        raise Refused(field, f"{text!r} is no PCI path: {element!r} is no slot")
    return Slot(int(device, 16), int(function or "0"))


def _is_number(text: str) -> bool:
    return 0 < len(text) <= 2 and _HEXADECIMAL.issuperset(text)


def resolve(path: PciPath, sys_root: str = "/sys") -> str | None:
    """Return a device's sysfs directory, or None as long as a part of the path does not exist.

    The directory is relative to `sys_root`, as in uevents (`/devices/pci0000:00/...`).
    """
    directory = f"/devices/pci0000:{path.root_complex:02x}"
    bus = f"0000:{path.root_complex:02x}"
    last = len(path.slots) - 1
    for depth, slot in enumerate(path.slots):
        directory += f"/{bus}:{slot.device:02x}.{slot.function}"
        if depth < last:
            below = _bus_below(sys_root + directory)
            if below is None:
                return None
            bus = below
    return directory if os.path.isdir(sys_root + directory) else None


def _bus_below(bridge: str) -> str | None:
    """Return the bus behind a bridge (`0000:01`), or None if it cannot be determined.

    It is read from the bridge's `pci_bus` entry, or else from the names of the devices behind it.
    """
    try:
        buses = os.listdir(f"{bridge}/pci_bus")
    except FileNotFoundError:
        buses = []
    if len(buses) == 1:
        return buses[0]
    try:
        children = {name.rpartition(":")[0] for name in os.listdir(bridge) if is_function(name)}
    except FileNotFoundError:
        return None
    return children.pop() if len(children) == 1 else None


def is_function(name: str) -> bool:
    """Return whether `name` is the address of a PCI function, as 0000:01:02.0."""
    digits = name[:4] + name[5:7] + name[8:10] + name[11:]
    return len(name) == 12 and name[4] + name[7] + name[10] == "::." and _HEXADECIMAL.issuperset(digits)
