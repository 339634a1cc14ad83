"""The host's block devices of a container, as disks of its VM.

They come from `volumeMode: Block` or `ctr run --device`. The specification has their numbers on the
host. The agent puts those of the guest in their place, also in the rules of the device control
group.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innkeeper.errors import InnkeeperError

SYSFS = Path("/sys/dev/block")
"""Has a folder for each block device, by its numbers (sysfs(5))."""
DEV = Path("/dev")


@dataclass(frozen=True)
class BlockDevice:
    """The host's block device `node`, which the container sees at `path`."""

    node: Path
    path: str
    read_only: bool


def of(linux: dict[str, Any]) -> tuple[BlockDevice, ...]:
    """Return the block devices in a specification's `linux`.

    Raises InnkeeperError for one that the host does not have.
    """
    return tuple(_device(entry, linux) for entry in linux.get("devices") or () if is_block(entry))


def is_block(entry: dict[str, Any]) -> bool:
    """Return whether an entry of linux.devices is a block device."""
    return entry.get("type") == "b"


def _device(entry: dict[str, Any], linux: dict[str, Any]) -> BlockDevice:
    path, numbers = str(entry["path"]), (int(entry.get("major", 0)), int(entry.get("minor", 0)))
    folder = SYSFS / f"{numbers[0]}:{numbers[1]}"
    try:
        facts = dict(line.partition("=")[::2] for line in (folder / "uevent").read_text().splitlines())
        node = DEV / facts["DEVNAME"]
        found = os.stat(node).st_rdev
        fixed = (folder / "ro").read_text().strip() == "1"
    except (OSError, KeyError) as error:
        raise InnkeeperError(f"linux.devices: {path}: the host has no block device {numbers[0]}:{numbers[1]}") from error
    if found != os.makedev(*numbers):
        raise InnkeeperError(f"linux.devices: {path}: {node} is not the block device {numbers[0]}:{numbers[1]}")
    return BlockDevice(node, path, fixed or not any("w" in access for access in _permitted(numbers, linux)))


def _permitted(numbers: tuple[int, int], linux: dict[str, Any]) -> Iterator[str]:
    """Yield what the device rules that name a block device permit.

    An engine adds one for each device.
    """
    for rule in (linux.get("resources") or {}).get("devices") or ():
        if rule.get("allow") and rule.get("type") in ("b", "a") and (rule.get("major"), rule.get("minor")) == numbers:
            yield str(rule.get("access") or "rwm")
