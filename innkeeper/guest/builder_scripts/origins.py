"""Runs inside the builder: finds the origin of each file of a root and each frozen module.

Reads /rootfs.erofs, /data (rootfs/ of the tree), /source (agent/, innkeeper/), /site and
/plan/plan.json.

Writes /out/origins.json: `files` (path -> what it is and its origin), `modules` (program -> module
-> origin), and `packages` (facts about each package that is an origin). An origin is null if
nothing explains the file: then the bill of materials says so, and a test fails.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # -I leaves it out

from debian_files import Packages, merged  # type: ignore[import-not-found]

ROOT = Path("/tmp/root")
AGENT = "usr/lib/innkeeper"
INTERNAL = f"{AGENT}/_internal"
SHIMS = Path("/inside/stdlib_shims")
COMPILED = {
    "usr/sbin/init": "rootfs/init.c",
    "usr/share/innkeeper/apparmor": "rootfs/apparmor/innkeeper-default",
    "usr/share/innkeeper/selinux": "rootfs/selinux",
    "etc/ld.so.conf": "innkeeper/guest/builder_scripts/assemble.py",
    "etc/ld.so.cache": "innkeeper/guest/builder_scripts/assemble.py",
    f"{AGENT}/agent": "agent/__main__.py",
    f"{AGENT}/gateway": "agent/gateway/__main__.py",
}
"""Files that are made of our source, and what of it."""

LOADER = "PyInstaller/bootloader/Linux-64bit-intel/run"
"""The program of PyInstaller's wheel that each frozen program begins with."""
MOST_WORDS = 7
"""Most words of a licence's short name."""


class Owners:
    """Which package has a file: Debian's by dpkg's lists, Python's by the records of the wheels."""

    def __init__(self) -> None:
        self.debian: dict[str, str] = {}
        for listed in sorted(Path("/var/lib/dpkg/info").glob("*.list")):
            package = listed.stem.partition(":")[0]
            self.debian.update(dict.fromkeys(map(merged, listed.read_text().splitlines()), package))
        self.names: dict[str, list[str]] = {}
        for path in self.debian:
            self.names.setdefault(os.path.basename(path), []).append(path)
        self.python: dict[str, str] = {}
        for record in sorted(Path("/site").glob("*.dist-info/RECORD")):
            project = distribution(record.parent)["Name"]
            self.python.update({line.split(",")[0]: project for line in record.read_text().splitlines()})

    def of(self, path: str) -> dict[str, Any] | None:
        """Return the origin of a file of the builder, by its own path or by where a link leads."""
        for candidate in (merged(path), merged(os.path.realpath(path))):
            if candidate in self.debian:
                return {"type": "debian", "name": self.debian[candidate], "path": candidate}
        return None

    def of_wheel(self, name: str) -> dict[str, Any] | None:
        """Return the origin of a file below /site."""
        return {"type": "python", "name": self.python[name], "path": name} if name in self.python else None


def distribution(folder: Path) -> Any:
    """Return the metadata of an installed wheel."""
    return HeaderParser().parsestr((folder / "METADATA").read_text())


def main() -> None:
    """Write the origins of everything in the root."""
    plan = json.loads(Path("/plan/plan.json").read_text())
    subprocess.run(["fsck.erofs", f"--extract={ROOT}", "--preserve", "/rootfs.erofs"], check=True, stdout=subprocess.DEVNULL)
    owners = Owners()
    files = {}
    for path in sorted(ROOT.rglob("*")):
        if path.is_file() and not path.is_symlink():
            name = str(path.relative_to(ROOT))
            files[name] = {**described(path), "origin": origin_of(name, path, owners, plan["added"], plan["copied"])}
    modules = {name: {one: origin_of_module(name, one, owners) for one in listed} for name, listed in plan["modules"].items()}
    for listed in modules.values():
        listed[LOADER] = owners.of_wheel(LOADER)
    origins = [file["origin"] for file in files.values()] + [origin for listed in modules.values() for origin in listed.values()]
    document = {"files": files, "modules": modules, "packages": packages([origin for origin in origins if origin])}
    Path("/out/origins.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def described(path: Path) -> dict[str, Any]:
    """Return size, hash, mode and owner of a file."""
    status = path.stat()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"size": status.st_size, "sha256": digest, "mode": f"{status.st_mode & 0o7777:04o}", "owner": f"{status.st_uid}:{status.st_gid}"}


def origin_of(name: str, path: Path, owners: Owners, added: dict[str, Any], copied: dict[str, str]) -> dict[str, Any] | None:
    """Return where a file of the root comes from, or None.

    `copied` maps files of the root to those of the builder.
    """
    if name in added and added[name]["type"] == "guest.toml":
        return {"type": "guest.toml", "path": f"/{name}"}
    if same(path, Path("/data/skeleton") / name):
        return {"type": "source", "path": f"rootfs/skeleton/{name}"}
    if name in COMPILED:
        return {"type": "source", "path": COMPILED[name]}
    if name.startswith(f"{INTERNAL}/"):
        return origin_of_internal(name.removeprefix(f"{INTERNAL}/"), owners)
    place = copied.get(f"/{name}", f"/{name}")
    return owners.of(place) if same(path, Path(place)) else None


def origin_of_internal(name: str, owners: Owners) -> dict[str, Any] | None:
    """Return where a file beside the frozen programs comes from.

    PyInstaller strips libraries, so that their content differs.
    """
    if found := owners.of_wheel(name):
        return found
    if name.startswith("encodings/"):
        return owners.of(f"/usr/lib/python3.13/{name.removesuffix('c')}")
    if name.startswith("python3"):
        return owners.of(f"/usr/lib/{name}")
    for place in owners.names.get(os.path.basename(name), []):
        if place.startswith("/usr/lib/") and Path(place).is_file():
            return owners.of(place)
    return None


def origin_of_module(program: str, name: str, owners: Owners) -> dict[str, Any] | None:
    """Return where a frozen module comes from: our source, a wheel, or Debian's Python."""
    stem = name.replace(".", "/")
    if program == "agent" and (SHIMS / f"{name}.py").exists():
        return {"type": "source", "path": f"innkeeper/guest/builder_scripts/stdlib_shims/{name}.py"}
    for file in (f"{stem}.py", f"{stem}/__init__.py"):
        if Path("/source", file).exists():
            return {"type": "source", "path": file}
        if found := owners.of_wheel(file):
            return found
        for folder in ("/usr/lib/python3.13", "/usr/lib/python3/dist-packages"):
            if Path(folder, file).exists():
                return owners.of(f"{folder}/{file}")
    inside = next((file for file in owners.python if file.startswith(f"{stem}/")), None)  # a namespace, which has no file
    return owners.of_wheel(inside) if inside else None


def same(path: Path, other: Path) -> bool:
    """Return whether two files have the same content."""
    return other.is_file() and other.stat().st_size == path.stat().st_size and other.read_bytes() == path.read_bytes()


def packages(origins: list[dict[str, Any]]) -> dict[str, Any]:
    """Return facts about each package among the origins, by type and name."""
    installed = Packages()
    found: dict[str, Any] = {}
    for name in sorted({origin["name"] for origin in origins if origin["type"] == "debian"}):
        source = subprocess.run(
            ["dpkg-query", "-W", "-f", "${source:Package} ${source:Version}\n", name], capture_output=True, text=True, check=True
        ).stdout.split()
        facts = {"version": installed.version(name), "architecture": installed.architecture(name), "licenses": debian_licenses(name)}
        found[f"debian {name}"] = {**facts, "source": source[0], "source_version": source[1]}
    wheels = {distribution(folder)["Name"]: distribution(folder) for folder in sorted(Path("/site").glob("*.dist-info"))}
    for name in sorted({origin["name"] for origin in origins if origin["type"] == "python"}):
        found[f"python {name}"] = {"version": wheels[name]["Version"], "licenses": wheel_licenses(wheels[name])}
    return found


def debian_licenses(package: str) -> list[str]:
    """Return the short names of the licences in Debian's copyright file (DEP 5), or none."""
    path = Path(f"/usr/share/doc/{package}/copyright")
    if not path.is_file():
        return []
    found = set(re.findall(r"^License:[ \t]*(\S.*?)[ \t]*$", path.read_text(errors="replace"), re.MULTILINE))
    # A file that is not in the format may have a sentence there.
    return sorted(text for text in found if "," not in text and len(text.split()) <= MOST_WORDS)


def wheel_licenses(metadata: Any) -> list[str]:
    """Return the licence of a wheel as its metadata names it."""
    told = metadata["License-Expression"] or metadata["License"] or ""
    if told and "\n" not in told:
        return [told]
    return [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier") or [] if line.startswith("License ::")]


if __name__ == "__main__":
    main()
