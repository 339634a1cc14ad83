"""Facts about this host that hold until it reboots, one small JSON file each in the cache."""

import json
from pathlib import Path
from typing import Any

from innkeeper import files
from innkeeper.paths import cache_root

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def recall(name: str) -> Any:
    """Return the value remembered under `name` since the host booted, or None."""
    boot_id, value = _read(name)
    try:
        return value if boot_id == BOOT_ID.read_text().strip() else None
    except OSError:
        return None


def recall_older(name: str) -> Any:
    """Return the value remembered under `name`, in this boot or an earlier one, or None.

    It may not hold any more.
    """
    return _read(name)[1]


def _read(name: str) -> tuple[Any, Any]:
    """Return the boot id and the value that are remembered, or two times None."""
    try:
        known = json.loads(_path(name).read_bytes())
        return known["boot_id"], known["value"]
    except (OSError, ValueError, KeyError, TypeError):
        return None, None  # no such file, or not written by us


def remember(name: str, value: Any) -> None:
    """Remember `value` (JSON) until the next boot."""
    path = _path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replaced(path) as part:
        part.write_text(json.dumps({"boot_id": BOOT_ID.read_text().strip(), "value": value}))


def _path(name: str) -> Path:
    return cache_root() / f"host-{name}.json"
