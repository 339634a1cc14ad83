"""Compare two built images: files, packages, kernel symbols, modules of the programs.

    difference = diff.compare(Path("out-old"), Path("out-new"))
    print(diff.as_text(difference))

An image is an output folder of `build`, its manifest, or a root image alone. What an image does not
have (no kernel, no manifest) is not compared.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from innkeeper.errors import InnkeeperError
from innkeeper.guest import contents, kconfig

SECTIONS = ("files", "packages", "kernel", "modules")


@dataclass(frozen=True)
class Image:
    """What an image consists of: for each section a map from names to facts."""

    sections: Mapping[str, Mapping[str, Any]]


def compare(old: Path, new: Path) -> dict[str, Any]:
    """Return the differences by section, each with `added`, `removed` and `changed`, as in JSON.

    A section that one of the images does not have is None. Raises InnkeeperError.
    """
    first, second = read(old), read(new)
    return {name: _section(first.sections.get(name), second.sections.get(name)) for name in SECTIONS}


def read(path: Path) -> Image:
    """Return what an image consists of. Raises InnkeeperError."""
    folder = path.parent if path.name == "manifest.json" else path
    root = folder / "rootfs.erofs" if folder.is_dir() else folder
    if not root.is_file():
        raise InnkeeperError(f"{path}: no root image there", hint="use a folder of results with rootfs.erofs, or an erofs image")
    sections: dict[str, Mapping[str, Any]] = {}
    with contents.unpacked(root) as unpacked:
        sections["files"] = {name: asdict(entry) for name, entry in contents.entries(root, unpacked).items()}
        found = contents.modules(unpacked)
        sections["modules"] = {f"{program}: {name}": digest for program, modules in found.items() for name, digest in modules.items()}
    if folder.is_dir() and (folder / "manifest.json").is_file():
        sections["packages"] = _packages(folder / "manifest.json")
    if folder.is_dir() and (folder / "config").is_file():
        sections["kernel"] = kconfig.parse_config((folder / "config").read_text())
    return Image(sections)


def _packages(manifest: Path) -> dict[str, str]:
    """Return an image's packages with the builders that had them, by type and name."""
    found: dict[str, list[str]] = {}
    try:
        for entry in json.loads(manifest.read_text())["inputs"]:
            builders = f" ({', '.join(entry['builders'])})" if entry.get("builders") else ""
            found.setdefault(f"{entry['type']} {entry['name']}", []).append(f"{entry['version']}{builders}")
    except (ValueError, KeyError, TypeError):
        raise InnkeeperError(f"{manifest}: not a manifest of `build`") from None
    return {name: ", ".join(sorted(versions)) for name, versions in found.items()}


def _section(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if old is None or new is None:
        return None
    return {
        "added": {name: new[name] for name in sorted(new.keys() - old.keys())},
        "removed": {name: old[name] for name in sorted(old.keys() - new.keys())},
        "changed": {name: {"old": old[name], "new": new[name]} for name in sorted(old.keys() & new.keys()) if old[name] != new[name]},
    }


def is_same(difference: Mapping[str, Any]) -> bool:
    """Return whether nothing differs."""
    return not any(part for section in difference.values() if section for part in section.values())


def as_text(difference: Mapping[str, Any]) -> str:
    """Return the differences as lines for people: `+` added, `-` removed, `~` changed."""
    lines: list[str] = []
    for name in SECTIONS:
        section = difference[name]
        if section is None:
            lines.append(f"{name}: not known of both images")
            continue
        counts = [f"{len(section[part])} {part}" for part in ("added", "removed", "changed") if section[part]]
        lines.append(f"{name}: {', '.join(counts) or 'the same'}")
        lines += [f"  + {key}  {_words(value)}".rstrip() for key, value in section["added"].items()]
        lines += [f"  - {key}  {_words(value)}".rstrip() for key, value in section["removed"].items()]
        lines += [f"  ~ {key}  {_change(value['old'], value['new'])}".rstrip() for key, value in section["changed"].items()]
    return "\n".join(lines) + "\n"


def _words(value: Any) -> str:
    """Return one fact as words. A hash says nothing to people."""
    if isinstance(value, dict):
        size = (
            f"{value['size']} bytes" if value["kind"] == "file" else f"-> {value['target']}" if value["kind"] == "link" else value["kind"]
        )
        return f"{size}, mode {value['mode']}" if value["kind"] != "link" else size
    return "" if len(value) == 64 else str(value)


def _change(old: Any, new: Any) -> str:
    if not isinstance(old, dict):
        return "" if len(old) == 64 == len(new) else f"{old} -> {new}"
    told = [f"{key} {old[key]} -> {new[key]}" for key in ("kind", "size", "mode", "owner", "target") if old[key] != new[key]]
    return ", ".join(told) or "other content of the same size"
