"""The bill of materials in the format of SPDX 2.3 (JSON), made from the one in CycloneDX (`sbom`).

Each component is a package that contains its files. SPDX wants a SHA-1 of each file, so the root is
unpacked. SPDX has no place for the modules of a frozen program: the program's file is said to be
generated from the packages that they come from. Licences are those that Debian and the wheels name,
as comments: they are no expressions of SPDX.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from innkeeper import __version__
from innkeeper.guest import contents, sbom
from innkeeper.guest.builder import SOURCE_DATE_EPOCH
from innkeeper.guest.store import JSON, Store

NAME = "sbom.spdx.json"
FORMAT = 1
"""Part of the step's id: incremented when the document changes."""
NO_ASSERTION = "NOASSERTION"
_DOCUMENT = "SPDXRef-DOCUMENT"


def make_spdx(store: Store, made: Path, root: Path, outputs: Mapping[str, Path]) -> Path:
    """Write the document and return the step's folder.

    `made` is the step of `sbom.make_sbom`, `root` the image of the root, `outputs` the other files
    by name.
    """
    inputs: dict[str, JSON] = {"format": FORMAT, "sbom": made.name, "root": root.parent.name}

    def make(out: Path) -> None:
        known = json.loads((made / sbom.NAME).read_text())
        hashes = {name: _sha1(path) for name, path in outputs.items()}
        with contents.unpacked(root) as folder:
            hashes |= {name: _sha1(folder / name[1:]) for name in sbom.files(known) if name.startswith("/")}
        (out / NAME).write_text(json.dumps(document(known, hashes), indent=1) + "\n")

    return store.step("spdx", inputs, make)


def document(known: Mapping[str, Any], sha1: Mapping[str, str]) -> dict[str, Any]:
    """Return the document for one in CycloneDX.

    `sha1` has the hash of each file by its name there.
    """
    image = known["metadata"]["component"]
    packages = [_package("SPDXRef-image", image, ())]
    files: list[dict[str, Any]] = []
    relations = [_relation(_DOCUMENT, "DESCRIBES", "SPDXRef-image")]
    ids = {component["bom-ref"]: f"SPDXRef-Package-{number}" for number, component in enumerate(_packages(known), 1)}
    for component in _packages(known):
        package = ids[component["bom-ref"]]
        held = [one for one in component.get("components", []) if one["type"] == "file"]
        packages.append(_package(package, component, [sha1[one["name"]] for one in held]))
        relations.append(_relation("SPDXRef-image", "CONTAINS", package))
        for one in held:
            file = f"SPDXRef-File-{len(files) + 1}"
            files.append(_file(file, one, sha1[one["name"]]))
            relations.append(_relation(package, "CONTAINS", file))
            relations += [_relation(file, "GENERATED_FROM", ids[ref]) for ref in _of_modules(one) if ref in ids]
    for one in known["components"]:
        if one["type"] == "file":  # it has no origin
            files.append(_file(f"SPDXRef-File-{len(files) + 1}", one, sha1[one["name"]]))
            relations.append(_relation(_DOCUMENT, "DESCRIBES", files[-1]["SPDXID"]))
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(SOURCE_DATE_EPOCH))
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": f"{image['name']}-{image['version']}",
        "documentNamespace": known["serialNumber"],
        "creationInfo": {"created": created, "creators": [f"Tool: innkeeper-{__version__}"]},
        "packages": packages,
        "files": files,
        "relationships": relations,
    }


def files(made: Mapping[str, Any]) -> dict[str, str]:
    """Return the files of a document with the package of each, or "" without an origin."""
    names = {one["SPDXID"]: one["name"] for one in made["packages"]}
    holders = {one["relatedSpdxElement"]: one["spdxElementId"] for one in made["relationships"] if one["relationshipType"] == "CONTAINS"}
    return {one["fileName"].removeprefix("."): names.get(holders.get(one["SPDXID"], ""), "") for one in made["files"]}


def _packages(known: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (component for component in known["components"] if component["type"] != "file")


def _package(id: str, component: Mapping[str, Any], held: "list[str] | tuple[()]") -> dict[str, Any]:
    """Return a package. `held` are the hashes of its files."""
    package: dict[str, Any] = {
        "SPDXID": id,
        "name": component["name"],
        "downloadLocation": NO_ASSERTION,
        "licenseConcluded": NO_ASSERTION,
        "licenseDeclared": NO_ASSERTION,
        "copyrightText": NO_ASSERTION,
        "filesAnalyzed": bool(held),
    }
    if component.get("version"):
        package["versionInfo"] = component["version"]
    if component.get("hashes"):
        package["checksums"] = _checksums(component)
    if held:
        # The specification's algorithm: SHA-1 of the files' hashes, sorted and joined.
        package["packageVerificationCode"] = {"packageVerificationCodeValue": hashlib.sha1("".join(sorted(held)).encode()).hexdigest()}
    if names := [one["license"]["name"] for one in component.get("licenses", [])]:
        package["licenseComments"] = f"named by the package: {', '.join(names)}"
    if sources := [one["value"] for one in component.get("properties", []) if one["name"] == "innkeeper:debian:source"]:
        package["sourceInfo"] = f"built from: {sources[0]}"
    if component.get("purl"):
        reference = {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": component["purl"]}
        package["externalRefs"] = [reference]
    return package


def _file(id: str, component: Mapping[str, Any], sha1: str) -> dict[str, Any]:
    origin = [one["value"] for one in component.get("properties", []) if one["name"] == "innkeeper:origin"]
    name = component["name"]
    return {
        "SPDXID": id,
        "fileName": f".{name}" if name.startswith("/") else f"./{name}",
        "checksums": [{"algorithm": "SHA1", "checksumValue": sha1}, *_checksums(component)],
        "licenseConcluded": NO_ASSERTION,
        "licenseInfoInFiles": [NO_ASSERTION],
        "copyrightText": NO_ASSERTION,
        **({"comment": f"origin: {origin[0]}"} if origin else {}),
    }


def _of_modules(component: Mapping[str, Any]) -> list[str]:
    """Return the components of a frozen program's modules, in order of their first module."""
    properties = [one for module in component.get("components", []) for one in module.get("properties", [])]
    return list(dict.fromkeys(one["value"] for one in properties if one["name"] == "innkeeper:package"))


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


def _checksums(component: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"algorithm": "SHA256", "checksumValue": one["content"]} for one in component["hashes"]]


def _sha1(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()
