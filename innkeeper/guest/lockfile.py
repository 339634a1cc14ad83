"""The lock file `guest.lock`: which Debian packages a build takes, and the hashes of its results.

    lock = lockfile.refreshed(guest, file)          # every builder's pins, as the mirror is now
    lockfile.write(file, lock.builders, manifest)
    changes = lockfile.compare(manifest, file)      # whether a build is the known one

It is JSON with one package per line: it is read at each run, and the standard library reads JSON in
a millisecond. Each architecture has its part. The wheels are pinned by `agent/requirements.lock`,
whose entries are repeated here.
"""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from innkeeper import files, paths
from innkeeper.errors import InnkeeperError
from innkeeper.guest import archives, changelog, config_file, debian_kernel, host_programs, lsm_policies, pins, uki
from innkeeper.guest.builder import OLDER_SUITE, SUITE
from innkeeper.guest.config import Guest
from innkeeper.guest.derived import IMAGE_PACKAGES
from innkeeper.guest.freeze import PACKAGES
from innkeeper.guest.kernel import CROSS_SOURCES, SOURCES
from innkeeper.guest.pins import Package, Pins, Request
from innkeeper.guest.resolve import Resolver
from innkeeper.guest.store import Store

GOLDEN = ("rootfs.erofs", "bzImage", "vmlinux", "innkeeper.initrd", "innkeeper.img")
"""The results whose hashes are kept."""
CROSS_GOLDEN = ("Image",)
"""The same of a build for another architecture."""


def examples() -> list[Guest]:
    """Return the guests of the source tree's examples, whose packages are in its lock file.

    An installed package has none.
    """
    return [config_file.read([path]) for path in sorted(paths.project_root().glob("examples/*/guest.toml"))]


def requests(guests: Sequence[Guest], architectures: Sequence[str] = ()) -> list[Request]:
    """Return all requests to Debian.

    They are for the guests, each kernel, the runtime command, and programs for the host.
    `architectures` are further ones that guests are made for: each has emulated builders.

    A request comes after those that it adds packages to.
    """
    builders = [PACKAGES, lsm_policies.PACKAGES, IMAGE_PACKAGES, uki.PACKAGES, host_programs.PACKAGES]
    found = [Request(SUITE), debian_kernel.request(), *(Request(SUITE, tuple(sorted(names))) for names in builders)]
    found += [Request(OLDER_SUITE), Request(OLDER_SUITE, tuple(sorted(PACKAGES)))]
    found += [source.builder(Store(Path())).request for source in (*SOURCES.values(), *CROSS_SOURCES.values())]
    found += [Request(SUITE, (package,)) for package in host_programs.DEBIAN_PROGRAMS]
    found += [
        one
        for name in dict.fromkeys((*architectures, *(guest.foreign for guest in guests if guest.foreign)))
        for one in (Request(SUITE, architecture=name), Request(SUITE, tuple(sorted(PACKAGES)), architecture=name))
    ]
    more = [(tuple(sorted(set(guest.root.packages))), guest.foreign) for guest in guests if guest.root.packages]
    return [*found, *(Request(SUITE, names, tuple(sorted(PACKAGES)), architecture=other) for names, other in dict.fromkeys(more))]


def refreshed(guest: Guest, file: Path) -> Pins:
    """Return pins of every builder for what the mirror has now.

    Nothing is installed or written. Raises InnkeeperError.
    """
    is_trees = file == paths.project_root() / pins.NAME
    wanted = requests([guest, *(examples() if is_trees else ())], list(CROSS_SOURCES) if is_trees else ())
    builders: dict[str, list[Package]] = {}
    for suite, architecture in dict.fromkeys((request.suite, request.architecture) for request in wanted):
        with Resolver(suite, architecture) as resolver:
            for request in (one for one in wanted if (one.suite, one.architecture) == (suite, architecture)):
                status = resolver.status(_below(request, builders)) if request.packages and not request.only else ""
                builders[request.key] = resolver.resolve(request, status)
    return Pins(builders, file)


def _below(request: Request, builders: Mapping[str, Sequence[Package]]) -> list[Package]:
    """Return the packages of what a request adds to."""
    below = list(builders[Request(request.suite, architecture=request.architecture).key])
    on = Request(request.suite, request.on, architecture=request.architecture)
    return [*below, *builders[on.key]] if request.on else below


def package_changes(old: Pins, new: Pins, store: Store | None = None) -> list[str]:
    """Return the differences of two files' packages, one line per name.

    A line has old and new versions, and the urgency of the new ones. The urgency is in the new
    package, which is fetched to `store`. Without a store it is not said.
    """
    before, after = _versions(old), _versions(new)
    packages = {(one.name, one.version): one for listed in new.builders.values() for one in listed}
    lines = []
    for name in sorted(before.keys() | after.keys()):
        gone, come = sorted(before.get(name, set()) - after.get(name, set())), sorted(after.get(name, set()) - before.get(name, set()))
        if gone or come:
            marks = ["security update"] if any(packages[name, version].is_security_update for version in come) else []
            if gone and come and store is not None:
                marks.append(f"urgency {_urgency(store, packages[name, come[-1]], gone[0])}")
            mark = f" ({', '.join(marks)})" if marks else ""
            lines.append(
                f"debian: {name} {', '.join(gone) or 'new:'}{' -> ' if gone and come else ' '}{', '.join(come) or 'is gone'}{mark}"
            )
    return lines


def _urgency(store: Store, package: Package, old: str) -> str:
    (store.root / ".logs").mkdir(parents=True, exist_ok=True)
    try:
        (archive,) = archives.fetch(store, [package], store.root / ".logs" / "refresh.log")
    except InnkeeperError:
        return changelog.UNKNOWN  # the build says why, if it needs the package
    return changelog.urgency(archive, package.name, old)


def _versions(known: Pins) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for listed in known.builders.values():
        for one in listed:
            found.setdefault(one.name, set()).add(one.version)
    return found


def write(file: Path, known: Pins, manifest: Path) -> None:
    """Write the lock file: the packages of `known`, and the hashes of the build of `manifest`.

    Parts of other architectures stay. Hashes of results that this build does not have stay if the
    packages are the same.
    """
    made = json.loads(manifest.read_text())
    document: dict[str, Any] = pins.document(file) if is_current(file) else {"architectures": {}}
    before = Pins.read(file) if is_current(file) else Pins()
    parts, here, target = document["architectures"], platform.machine(), _target(made)
    for architecture in dict.fromkeys((here, target, *(key.rpartition("/")[0] or here for key in known.builders))):
        builders, old = (_of_architecture(one, architecture if architecture != here else "") for one in (known, before))
        golden = parts.get(architecture, {}).get("golden", {}) if old == builders else {}
        if architecture == target:
            golden = golden | hashes(made)
        if golden or builders:
            parts[architecture] = _part(golden, builders)
    python = {f"{one['name']} {one['version']}": one["sha256"] for one in made["inputs"] if one["type"] == "python"}
    python = python or document.get("python", {})  # a build of a kernel alone has none
    with files.replaced(file) as fresh:
        fresh.write_text(as_text({"version": pins.VERSION, "python": python, "architectures": document["architectures"]}))
        fresh.chmod(0o644)


def _of_architecture(known: Pins, architecture: str) -> dict[str, Sequence[Package]]:
    """Return an architecture's pins by the names of the requests.

    An empty architecture is this machine's.
    """
    split = {key: key.rpartition("/") for key in known.builders}
    return {split[key][2]: list(listed) for key, listed in known.builders.items() if split[key][0] == architecture}


def _part(golden: Mapping[str, str], builders: Mapping[str, Sequence[Package]]) -> dict[str, Any]:
    """Return the part of an architecture."""
    packages = {one.key: one for listed in builders.values() for one in listed}
    return {
        "golden": golden,
        "builders": {name: [one.key for one in listed] for name, listed in sorted(builders.items())},
        "packages": {key: {"sha256": one.sha256, "size": one.size, "path": one.path} for key, one in sorted(packages.items())},
    }


def is_current(file: Path) -> bool:
    """Return whether there is a file of this format. One of an earlier format is written anew."""
    try:
        return file.exists() and json.loads(file.read_text()).get("version") == pins.VERSION
    except (ValueError, AttributeError):
        return False


def as_text(document: Mapping[str, Any]) -> str:
    """Return a lock file's text: JSON with each package on a line of its own."""
    return "\n".join(_lines(document, "")) + "\n"


def _lines(value: Mapping[str, Any], indent: str) -> Iterator[str]:
    yield "{"
    for number, (key, content) in enumerate(value.items()):
        comma = "," if number + 1 < len(value) else ""
        nested = isinstance(content, Mapping) and "sha256" not in content
        text = "\n".join(_lines(content, f"{indent} ")) if nested else _flat(content, f"{indent} ")
        yield f"{indent} {json.dumps(key)}: {text}{comma}"
    yield f"{indent}}}"


def _flat(value: Any, indent: str) -> str:
    if isinstance(value, list) and len(value) > 2:
        return "[\n" + ",\n".join(f"{indent} {json.dumps(one)}" for one in value) + f"\n{indent}]"
    return json.dumps(value)


def _target(manifest: Mapping[str, Any]) -> str:
    """Return the architecture of a build, by which the file has the hashes of its results."""
    return str(manifest.get("architecture", platform.machine()))


def hashes(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the hashes of a build's results, and the root hash of dm-verity."""
    found = {name: manifest["outputs"][name]["sha256"] for name in (*GOLDEN, *CROSS_GOLDEN) if name in manifest["outputs"]}
    return {**found, "root_hash": manifest["verity"]["root_hash"]} if "verity" in manifest else found


def compare(manifest: Path, file: Path) -> list[str]:
    """Return what a build has that differs from the lock file, one per line.

    Raises InnkeeperError if there is no lock file.
    """
    document, made = pins.document(file), json.loads(manifest.read_text())
    parts = [document["architectures"].get(name, {}) for name in {platform.machine(), _target(made)}]
    packages = {key: entry for part in parts for key, entry in part.get("packages", {}).items()}
    lines = []
    for one in made["inputs"]:
        key = f"{one['name']} {one['version']}"
        if one["type"] == "debian" and packages.get(f"{key} {one['architecture']}", {}).get("sha256") != one.get("sha256"):
            lines.append(f"debian: {key} {one['architecture']} is not in the lock file")
        if one["type"] == "python" and document.get("python", {}).get(key) != one["sha256"]:
            lines.append(f"python: {key} is not in the lock file")
    return [*lines, *golden_changes(manifest, file)]


def golden_changes(manifest: Path, file: Path) -> list[str]:
    """Return the hashes of a build that are not those of the lock file, one per line."""
    made = json.loads(manifest.read_text())
    known = pins.document(file)["architectures"].get(_target(made), {}).get("golden", {}) if is_current(file) else {}
    found = hashes(made)
    return [
        f"golden: {name} differs: {known.get(name, 'none')[:16]} in the lock file, {value[:16]} now"
        for name, value in found.items()
        if known.get(name) != value
    ]
