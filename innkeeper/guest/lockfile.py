"""A lock file: the packages that a build was made of, and the hashes of its results.

    changes = lockfile.compare(manifest, Path("guest.lock"))
    lockfile.write(manifest, Path("guest.lock"))

It is written from a manifest and compared with the one of a later build. It says whether a build is
the known one. It does not choose packages: a builder that is made anew takes what the mirror has.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from innkeeper import files
from innkeeper.errors import InnkeeperError

VERSION = 1
HEAD = "# Written by `build --lock FILE --refresh`: what the guest is made of, and what it is. Do not edit.\n"
GOLDEN = ("rootfs.erofs", "bzImage", "vmlinux", "innkeeper.initrd", "innkeeper.img")
"""The results whose hashes are kept."""


def write(manifest: Path, lock: Path) -> None:
    """Write the lock file for a manifest, atomically."""
    document = locked(json.loads(manifest.read_text()))
    lines = [HEAD, f"version = {VERSION}\n", "[golden]"]
    lines += [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in document["golden"].items()]
    for kind in ("debian", "python"):
        for name, value in document[kind].items():
            lines += ["", f"[{kind}.{json.dumps(name)}]", *(f"{key} = {json.dumps(one)}" for key, one in value.items())]
    with files.replaced(lock) as fresh:
        fresh.write_text("\n".join(lines) + "\n")
        fresh.chmod(0o644)


def compare(manifest: Path, lock: Path) -> list[str]:
    """Return the differences between a build and the lock file, one per line. Raises InnkeeperError if there is no lock file."""
    try:
        known = tomllib.loads(lock.read_text())
    except FileNotFoundError:
        raise InnkeeperError(f"{lock}: no such lock file", hint="write it: add --refresh") from None
    except (OSError, ValueError) as error:
        raise InnkeeperError(f"{lock}: {error}") from None
    if known.get("version") != VERSION:
        raise InnkeeperError(f"{lock}: version {known.get('version')!r}, this program knows {VERSION}")
    found = locked(json.loads(manifest.read_text()))
    return [line for part in ("debian", "python", "golden") for line in _differences(part, known.get(part, {}), found[part])]


def locked(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a lock file keeps of a manifest: `debian`, `python` and `golden`."""
    inputs = manifest["inputs"]
    golden = {name: manifest["outputs"][name]["sha256"] for name in GOLDEN if name in manifest["outputs"]}
    if "verity" in manifest:
        golden["root_hash"] = manifest["verity"]["root_hash"]
    return {
        "debian": {
            f"{one['name']} {one['version']} {one['architecture']}": {key: one[key] for key in ("sha256", "builders") if key in one}
            for one in inputs
            if one["type"] == "debian"
        },
        "python": {f"{one['name']} {one['version']}": {"sha256": one["sha256"]} for one in inputs if one["type"] == "python"},
        "golden": golden,
    }


def _differences(part: str, known: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    lines = [f"{part}: {name} is not in the lock file" for name in sorted(found.keys() - known.keys())]
    lines += [f"{part}: {name} is in the lock file only" for name in sorted(known.keys() - found.keys())]
    for name in sorted(found.keys() & known.keys()):
        if found[name] != known[name]:
            lines.append(f"{part}: {name} differs: {_told(known[name])} in the lock file, {_told(found[name])} now")
    return lines


def _told(value: Any) -> str:
    return value[:16] if isinstance(value, str) else json.dumps(value)
