"""The manifest `manifest.json`: the outputs of a build and everything that they were made of.

docs/manifest.md describes the fields. The manifest depends only on its inputs. It contains no time,
path or host name, so the manifests of two builds can be compared.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from innkeeper.files import hash_file
from innkeeper.guest import wheels
from innkeeper.guest.store import JSON, Store, record_of

Packages: TypeAlias = Sequence[Mapping[str, str]]

MANIFEST_VERSION = 1
"""The version of the format. Incremented when a field changes its meaning or is removed.

New fields do not change it.
"""


def make_manifest(
    store: Store,
    variant: str,
    steps: Sequence[Path],
    packages: Mapping[str, Packages],
    lock: Path | None,
    outputs: Mapping[str, Path],
    facts: Mapping[str, JSON],
) -> Path:
    """Write `manifest.json` and return the step's folder.

    `packages` are the Debian packages of each builder, `lock` is the file of locked Python packages
    if the build has any, and `facts` are further fields: of the root's hash tree and of the kernel.
    """
    inputs: dict[str, JSON] = {
        "manifest_version": MANIFEST_VERSION,
        "variant": variant,
        "steps": [step.name for step in steps],
        "outputs": {name: f"{path.parent.name}/{path.name}" for name, path in outputs.items()},
        "facts": dict(facts),
    }

    def make(out: Path) -> None:
        document: dict[str, JSON] = {
            "manifest_version": MANIFEST_VERSION,
            "variant": variant,
            "steps": [_step(step) for step in steps],
            "inputs": [*_debian(packages), *(_python(lock.read_text()) if lock else [])],
            "outputs": {name: {"size": path.stat().st_size, "sha256": hash_file(path)} for name, path in sorted(outputs.items())},
            **facts,
        }
        (out / "manifest.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")

    return store.step("manifest", inputs, make)


def _step(step: Path) -> JSON:
    record = record_of(step)
    return {"name": record["name"], "id": record["id"], "inputs": record["inputs"]}


def _debian(packages: Mapping[str, Packages]) -> list[JSON]:
    """Return each package once, with the builders that contain it."""
    found: dict[tuple[str, str, str], dict[str, JSON]] = {}
    for builder, entries in sorted(packages.items()):
        for entry in entries:
            key = (entry["name"], entry["version"], entry["architecture"])
            known = found.setdefault(key, {"type": "debian", **entry, "builders": []})
            builders = known["builders"]
            assert isinstance(builders, list)
            builders.append(builder)
            if "sha256" in entry:
                known["sha256"] = entry["sha256"]
    return [found[key] for key in sorted(found)]


def _python(lock: str) -> list[JSON]:
    """Return the locked Python packages.

    A package has several hashes if its archives differ by architecture.
    """
    found = wheels.requirements(lock)
    return [{"type": "python", "name": name, "version": version, "sha256": [*hashes]} for (name, version), hashes in found.items()]
