"""Facts about this host that hold until it reboots, one small JSON file each in the cache."""

import json
from pathlib import Path
from typing import Any

from innkeeper import files
from innkeeper.paths import cache_root

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def recall(name: str) -> Any:
    """Return the value remembered under `name` since the host booted, or None."""
    try:
        known = json.loads(_path(name).read_bytes())
        if known["boot_id"] == BOOT_ID.read_text().strip():
            return known["value"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no such file, or not written by us
    return None


def remember(name: str, value: Any) -> None:
    """Remember `value` (JSON) until the next boot."""
    path = _path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replaced(path) as part:
        part.write_text(json.dumps({"boot_id": BOOT_ID.read_text().strip(), "value": value}))


def _path(name: str) -> Path:
    return cache_root() / f"host-{name}.json"
