"""A bill of materials in CycloneDX 1.6 (JSON): every file of the image with its origin.

Packages are components that contain their files. Files of our source are in the component
`innkeeper`, files that a guest.toml adds in the component `guest.toml`, and the modules of a frozen
program in the program's file. A file without an origin would be a component of its own at the top.

The document depends only on its inputs: it has no time, and its serial number is made from the
root.
"""

import json
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from innkeeper import __version__
from innkeeper.files import hash_file
from innkeeper.guest import uki as uki_image
from innkeeper.guest.builder import SUITE
from innkeeper.guest.contents import PROGRAMS
from innkeeper.guest.kernel_choice import Kernel
from innkeeper.guest.manifest import Packages
from innkeeper.guest.store import JSON, Store

NAME = "sbom.cdx.json"
NAMESPACE = uuid.UUID("696e6e6b-6565-7065-7200-000000000002")
"""The namespace of serial numbers. Fixed, so that equal images have equal documents."""
FORMAT = 2
"""Part of the step's id: incremented when the document changes."""


def make_sbom(
    store: Store, origins: Path, kernel: Kernel, packages: Packages, root: Path, uki: Path | None = None, uki_packages: Packages = ()
) -> Path:
    """Write the document and return the step's folder.

    `origins` is the step of `find_origins`. `packages` are the Debian packages of the root's
    builder, some with the sha256 of their archives. `uki` is the step of the unified kernel image,
    `uki_packages` are those of its builder.
    """
    inputs: dict[str, JSON] = {
        "format": FORMAT,
        "origins": origins.name,
        "kernel": kernel.step.name,
        "facts": dict(kernel.facts),
        "version": __version__,
        "root": root.parent.name,
        **({"uki": uki.name} if uki else {}),
    }

    def make(out: Path) -> None:
        found = json.loads((origins / "origins.json").read_text())
        files = {name: (path.stat().st_size, hash_file(path)) for name, path in kernel.outputs.items()}
        image = {uki_image.NAME: ((uki / uki_image.NAME).stat().st_size, hash_file(uki / uki_image.NAME))} if uki else {}
        stub = [one for one in uki_packages if one["name"] == uki_image.STUB_PACKAGE]
        made = document(found, files, kernel.facts, packages, kernel.packages, hash_file(root), image, stub)
        (out / NAME).write_text(json.dumps(made, indent=1) + "\n")

    return store.step("sbom", inputs, make)


def document(
    found: Mapping[str, Any],
    kernel: Mapping[str, tuple[int, str]],
    facts: Mapping[str, JSON],
    packages: Packages,
    kernel_packages: Packages,
    root_hash: str,
    uki: Mapping[str, tuple[int, str]] | None = None,
    stub: Packages = (),
) -> dict[str, Any]:
    """Return the document.

    `found` is the content of `origins.json`, `kernel` and `uki` have size and hash of each file.
    `packages` are those of the root's builder, `kernel_packages` those that the kernel is made of,
    `stub` the one with the stub of the unified kernel image.
    """
    archives = {(entry["name"], entry["version"]): entry["sha256"] for entry in packages if "sha256" in entry}
    components: dict[str, dict[str, Any]] = {"innkeeper": _component("application", "innkeeper", __version__, licenses=["Apache-2.0"])}
    components["guest.toml"] = _component("data", "guest.toml", "")
    for key, package in found["packages"].items():
        kind, _, name = key.partition(" ")
        components[key] = _package(kind, name, package, archives.get((name, package["version"]), ""))
    unknown: list[dict[str, Any]] = []
    for name, file in found["files"].items():
        component = _file(name, file, found["modules"], components)
        key = _key(file["origin"])
        (components[key]["components"] if key else unknown).append(component)
    components["kernel"] = _kernel({**kernel, **(uki or {})}, facts)
    for entry in [*_of_kernel(facts, kernel_packages), *stub]:
        known = {**entry, "licenses": (), "source": entry["name"], "source_version": entry["version"]}
        components.setdefault(f"debian {entry['name']}", _package("debian", entry["name"], known, entry.get("sha256", "")))
    image = {"type": "operating-system", "bom-ref": "image", "name": "innkeeper-guest", "version": __version__}
    listed = [_finished(component) for component in components.values() if component["components"] or component["purl"]]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, root_hash + json.dumps(dict(facts), sort_keys=True))}",
        "version": 1,
        "metadata": {"component": {**image, "hashes": _hashes(root_hash)}},
        "components": [*listed, *unknown],
        "dependencies": [{"ref": "image", "dependsOn": [component["bom-ref"] for component in [*listed, *unknown]]}],
    }


def files(made: Mapping[str, Any]) -> dict[str, str]:
    """Return the files of a document with the component of each, or "" without an origin."""
    found = {component["name"]: "" for component in made["components"] if component["type"] == "file"}
    for component in made["components"]:
        found |= {one["name"]: component["name"] for one in component.get("components", []) if one["type"] == "file"}
    return found


def _component(kind: str, name: str, version: str, *, purl: str = "", licenses: Iterable[str] = (), sha256: str = "") -> dict[str, Any]:
    return {
        "type": kind,
        "bom-ref": purl or name,
        "name": name,
        "version": version,
        "hashes": _hashes(sha256) if sha256 else [],
        "licenses": [{"license": {"name": text}} for text in licenses],
        "purl": purl,
        "properties": [],
        "components": [],
    }


def _finished(component: Mapping[str, Any]) -> dict[str, Any]:
    """Return a component without the fields that are empty."""
    return {name: value for name, value in component.items() if value}


def _package(kind: str, name: str, package: Mapping[str, Any], sha256: str) -> dict[str, Any]:
    version = package["version"]
    if kind == "python":
        return _component(
            "library", name, version, purl=f"pkg:pypi/{name.lower().replace('_', '-')}@{version}", licenses=package["licenses"]
        )
    purl = f"pkg:deb/debian/{name}@{version.replace(':', '%3A').replace('+', '%2B')}?arch={package['architecture']}&distro={SUITE}"
    component = _component("library", name, version, purl=purl, licenses=package["licenses"], sha256=sha256)
    component["properties"] = [_property("debian:source", f"{package['source']} {package['source_version']}")]
    return component


def _file(name: str, file: Mapping[str, Any], modules: Mapping[str, Any], packages: Mapping[str, Any]) -> dict[str, Any]:
    properties = [_property(key, str(file[key])) for key in ("size", "mode", "owner")]
    if file["origin"]:
        properties.append(_property("origin", file["origin"]["path"]))
    component = {
        "type": "file",
        "bom-ref": f"file:/{name}",
        "name": f"/{name}",
        "hashes": _hashes(file["sha256"]),
        "properties": properties,
    }
    frozen = next((modules[program] for program, path in PROGRAMS.items() if path == name and program in modules), None)
    if frozen is not None:
        component["components"] = [_module(name, module, origin, packages) for module, origin in frozen.items()]
    return component


def _module(program: str, name: str, origin: Mapping[str, Any] | None, packages: Mapping[str, Any]) -> dict[str, Any]:
    component: dict[str, Any] = {"type": "library", "bom-ref": f"module:/{program}:{name}", "name": name}
    key = _key(origin)
    properties = [_property("kind", "program" if "/" in name else "frozen Python module")]
    if key and origin:
        component["version"] = packages[key]["version"]
        properties += [_property("package", packages[key]["bom-ref"]), _property("origin", origin["path"])]
    return {**component, "properties": properties}


def _key(origin: Mapping[str, Any] | None) -> str:
    """Return the component that something of this origin belongs to, or "" if it has none."""
    if origin is None:
        return ""
    if origin["type"] in ("debian", "python"):
        return f"{origin['type']} {origin['name']}"
    return "guest.toml" if origin["type"] == "guest.toml" else "innkeeper"


def _kernel(files: Mapping[str, tuple[int, str]], facts: Mapping[str, Any]) -> dict[str, Any]:
    component = _component("operating-system", "linux", str(facts.get("version", "")))
    component["bom-ref"] = "kernel"
    component["properties"] = [_property(key, str(facts[key])) for key in ("from", "source") if key in facts]
    for name, (size, sha256) in files.items():
        entry = {"type": "file", "bom-ref": f"output:{name}", "name": name, "hashes": _hashes(sha256)}
        component["components"].append({**entry, "properties": [_property("size", str(size))]})
    return component


def _of_kernel(facts: Mapping[str, Any], packages: Packages) -> list[Mapping[str, str]]:
    """Return the packages of the kernel.

    They are the source of ours, or the ready-made one and busybox for its initrd.
    """
    if facts.get("from") != "ours":
        return list(packages)
    return [entry for entry in packages if f"{entry['name']} {entry['version']}" == facts.get("source")]


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]


def _property(name: str, value: str) -> dict[str, str]:
    return {"name": f"innkeeper:{name}", "value": value}
