"""`linux.netDevices` of the specification: interfaces that move into the container."""

import re
from dataclasses import dataclass

from agent.container.spec.reader import SpecReader, text
from agent.errors import Refused

NAME_MAX = 15
NAME = re.compile(r"[^/:\s]+")


@dataclass(frozen=True, slots=True)
class NetDevice:
    """An interface and its name in the container: "%d" at the end is the first free number."""

    field: str
    name: str
    inside: str

    def describe(self) -> str:
        """Return one line that says what `move` does."""
        return f"move network interface {self.name} into the container as {self.inside} ({self.field})"


def parse_net_devices(reader: SpecReader | None) -> tuple[NetDevice, ...]:
    """Return `linux.netDevices` as objects. Raises Refused."""
    if reader is None:
        return ()
    result = []
    for name in reader.document:
        text(name, reader.path)
        entry = SpecReader(reader.required(name), reader.name(name[:64]), reader.warnings)
        inside = entry.string("name") or name
        entry.finish()
        check_name(name, entry.path)
        check_name(inside, entry.name("name"))
        result.append(NetDevice(entry.path, name, inside))
    names = [device.inside for device in result if not device.inside.endswith("%d")]
    for device in result:
        if names.count(device.inside) > 1:
            raise Refused(device.field, f"{device.inside!r} is given to two interfaces")
    return tuple(result)


def check_name(name: str, field: str) -> None:
    """Raise Refused for a name that the kernel does not accept (dev_valid_name)."""
    if not NAME.fullmatch(name) or len(name.encode("utf-8", "surrogateescape")) > NAME_MAX or name in (".", ".."):
        raise Refused(field, f"{name[:64]!r} is not an interface's name")
