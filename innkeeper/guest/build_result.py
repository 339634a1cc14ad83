"""What `build --json` prints after a build: steps with their times, outputs with their hashes."""

import json
from pathlib import Path
from typing import Any

from innkeeper.guest.store import Store

VERSION = 1
"""The version of the format. Incremented when a field changes its meaning or is removed."""


def document(output: Path, manifest: Path, store: Store, reference: str = "") -> dict[str, Any]:
    """Return the document for a build by `store` whose files are in `output`.

    `steps` are in the order in which they were ready, with the seconds of those that were made now,
    in which the steps that they waited for are included. `reference` is that of the guest in a
    registry.
    """
    made = json.loads(manifest.read_text())
    return {
        "version": VERSION,
        "output": str(output),
        "manifest": str(manifest),
        "steps": [
            {"name": one.name, "id": one.id, "in_store": one.in_store, "seconds": round(one.seconds, 3)} for one in store.runs.values()
        ],
        "outputs": {name: {"path": str(output / name), **entry} for name, entry in made["outputs"].items()},
        "verity_root_hash": made["verity"]["root_hash"] if "verity" in made else None,
        "reference": reference or None,
    }
