"""Moves interfaces into the container (`linux.netDevices`).

They come from the agent's network namespace. An interface keeps its global addresses. One request
takes it down, moves and renames it. Then it is brought up inside.
"""

import socket

from agent.container.namespaces import TemporaryNamespaces
from agent.container.spec.net_devices import NetDevice
from agent.errors import Refused, StepFailed
from agent.linux.netlink import Attributes, LinkSocket
from agent.linux.process import CLONE_NEWNET


def move(devices: tuple[NetDevice, ...], namespace: int) -> None:
    """Move interfaces into the network namespace of a descriptor.

    Raises Refused, StepFailed, and then moves back those that it has moved.
    """
    with LinkSocket() as here:
        sources = [(device, _index(device)) for device in devices]
        addresses = [here.permanent_addresses(index) for _device, index in sources]
        with TemporaryNamespaces([(namespace, CLONE_NEWNET)]) as entered, LinkSocket() as inside:
            moved: list[tuple[NetDevice, int]] = []
            try:
                for (device, index), old in zip(sources, addresses, strict=True):
                    moved.append((device, _move(device, index, here, namespace)))
                    _restore_addresses(moved[-1][1], old, inside)
            except (OSError, Refused) as error:
                for device, index in moved:
                    inside.move_link(index, entered.original(CLONE_NEWNET), device.name)
                if isinstance(error, Refused):
                    raise
                raise StepFailed("move network devices", f"{device.name}: {error.strerror}", error.errno or 0) from error


def _index(device: NetDevice) -> int:
    try:
        return socket.if_nametoindex(device.name)
    except OSError as error:
        raise Refused(device.field, f"no interface {device.name!r} here") from error


def _move(device: NetDevice, index: int, here: LinkSocket, namespace: int) -> int:
    """Move an interface, and return its index inside.

    The kernel keeps the index unless it is in use there.
    """
    before = {name for _index, name in socket.if_nameindex()}
    if device.inside in before:
        raise Refused(f"{device.field}.name", f"{device.inside!r} exists in the container's network namespace")
    here.move_link(index, namespace, device.inside)
    return next(number for number, name in socket.if_nameindex() if name not in before)


def _restore_addresses(index: int, addresses: list[tuple[bytes, Attributes]], inside: LinkSocket) -> None:
    """Restore an interface's addresses, which the kernel drops with the move, and bring it up."""
    for kind, attributes in addresses:
        inside.add_address(index, kind, attributes)
    inside.bring_up(index)
