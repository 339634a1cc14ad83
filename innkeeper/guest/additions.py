"""What `guest.toml` adds to the root: files, Debian packages, the agent's policy and settings.

    root = customise(store, project, guest, rootfs)

The step unpacks the root that `rootfs/` describes, adds to it, and writes an image again. So the
root without additions is the same step as ever, and one with them is ready in seconds.
"""

import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from innkeeper import progress
from innkeeper.errors import InnkeeperError
from innkeeper.files import hash_file
from innkeeper.guest.buildah import BuildahError
from innkeeper.guest.builder import SOURCE_DATE_EPOCH, Builder
from innkeeper.guest.config import POLICY_PATH, SETTINGS_PATH, FilePart, Guest
from innkeeper.guest.freeze import BUILDER_SCRIPTS, PACKAGES
from innkeeper.guest.resolve import NoPackage
from innkeeper.guest.store import JSON, Store, hash_tree

SCRIPTS = ("customise.py", "assemble.py", "debian_files.py")
"""The scripts that run in the builder. The first is the one to start."""
_REFUSED = re.compile(r"^refused: (.+)$", re.MULTILINE)
"""What the script in the builder prints of a file that it cannot add."""


@dataclass(frozen=True)
class Added:
    """A file, folder or link for the root. `content` is a file's: a path of the host, or bytes."""

    path: str
    kind: str
    mode: int
    owner: str = "0:0"
    target: str = ""
    content: Path | bytes = b""
    replace: bool = False

    def described(self) -> dict[str, JSON]:
        """Return what decides a build about it."""
        kept: dict[str, JSON] = {"path": self.path, "kind": self.kind, "mode": self.mode, "owner": self.owner, "replace": self.replace}
        if self.kind == "link":
            return {**kept, "target": self.target}
        return {**kept, "sha256": _hash(self.content)} if self.kind == "file" else kept


def builder(store: Store, guest: Guest) -> Builder:
    """Return the builder that has the guest's packages.

    Without any it is the one that assembles the root.
    """
    if not guest.root.packages:
        return Builder(PACKAGES, store, architecture=guest.foreign)
    return Builder(guest.root.packages, store, on=PACKAGES, architecture=guest.foreign)


def customise(store: Store, guest: Guest, rootfs: Path) -> Path:
    """Add to the root of step `rootfs` what the guest has, and return the step's folder.

    Like that of `rootfs`, it contains `root.erofs` and `files.json`, and also `origins.json`: the
    origin of each file that was added.
    """
    entries = list(added(guest))
    builds = builder(store, guest)
    below = Builder([], store, architecture=guest.foreign)
    base = sorted(entry["name"] for entry in below.package_list())
    try:
        builder_id = builds.id
    except NoPackage as error:
        raise InnkeeperError(f"guest.toml: {error.message}", hint=error.hint) from None
    inputs: dict[str, JSON] = {
        "builder": builder_id,
        "rootfs": rootfs.name,
        "files": [entry.described() for entry in entries],
        "packages": [*sorted(set(guest.root.packages))],
        "base": below.id,
        "scripts": hash_tree(BUILDER_SCRIPTS, SCRIPTS),
        "epoch": SOURCE_DATE_EPOCH,
    }

    def make(out: Path) -> None:
        with progress.step("adding to the root file system what guest.toml names"), builds:
            work = out / "work"
            _write_plan(work, entries, guest, base)
            mounts = {rootfs: "/rootfs:ro", work: "/plan:ro", BUILDER_SCRIPTS: "/inside:ro", out: "/out"}
            with _refusals():
                builds.run(["python3", "-I", f"/inside/{SCRIPTS[0]}"], mounts=mounts, log=store.log_of(out))
            shutil.rmtree(work)

    return store.step("custom-root", inputs, make)


@contextmanager
def _refusals() -> Iterator[None]:
    """Context manager: show what the script refused in place of its command line and output."""
    try:
        yield
    except BuildahError as error:
        if match := _REFUSED.search(error.message):
            raise InnkeeperError(f"guest.toml: {match[1]}", hint=error.hint) from None
        raise


def added(guest: Guest) -> Iterator[Added]:
    """Yield what is added to the root, in order of the paths.

    Raises InnkeeperError for what cannot be read.
    """
    found = [entry for part in guest.files for entry in _entries(part)]
    if guest.agent.policy:
        found.append(Added(POLICY_PATH, "file", 0o644, content=Path(guest.agent.policy)))
    if guest.agent.settings:
        found.append(Added(SETTINGS_PATH, "file", 0o644, content=_settings(guest)))
    yield from sorted(found, key=lambda entry: entry.path)


def _settings(guest: Guest) -> bytes:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in sorted(guest.agent.settings.items())).encode()


def _entries(part: FilePart) -> Iterator[Added]:
    mode = int(part.mode, 8) if part.mode else None
    if part.link:
        yield Added(part.path, "link", 0o777, target=part.link, owner=part.owner, replace=part.replace)
    elif part.folder:
        yield Added(part.path, "folder", 0o755 if mode is None else mode, owner=part.owner)
    elif part.source and Path(part.source).is_dir():
        if mode is not None:
            raise InnkeeperError(f"files: {part.path}: a folder that is copied keeps the modes of its files", hint="leave out mode")
        yield from _tree(Path(part.source), part)
    elif part.source:
        source = Path(part.source)
        yield Added(part.path, "file", _mode(source) if mode is None else mode, content=source, owner=part.owner, replace=part.replace)
    else:
        content = part.text.encode()
        yield Added(part.path, "file", 0o644 if mode is None else mode, content=content, owner=part.owner, replace=part.replace)


def _tree(folder: Path, part: FilePart) -> Iterator[Added]:
    yield Added(part.path, "folder", 0o755, owner=part.owner)
    for path in sorted(folder.rglob("*")):
        target = f"{part.path}/{path.relative_to(folder)}"
        if path.is_symlink():
            yield Added(target, "link", 0o777, target=os.readlink(path), owner=part.owner, replace=part.replace)
        elif path.is_dir():
            yield Added(target, "folder", 0o755, owner=part.owner)
        elif path.is_file():
            yield Added(target, "file", _mode(path), content=path, owner=part.owner, replace=part.replace)
        else:
            raise InnkeeperError(f"files: {path} is neither a file, a folder nor a link")


def _mode(path: Path) -> int:
    """Return the mode of a copy: not that of the host's file, which a umask decides."""
    return 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644


def _hash(content: Path | bytes) -> str:
    import hashlib

    return hash_file(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()


def _write_plan(work: Path, entries: list[Added], guest: Guest, base: list[str]) -> None:
    """Write `plan.json` and the contents of the files for the script in the builder."""
    (work / "files").mkdir(parents=True)
    for number, entry in enumerate(entries):
        target = work / "files" / str(number)
        if entry.kind == "file" and isinstance(entry.content, Path):
            shutil.copyfile(entry.content, target)
        elif entry.kind == "file" and isinstance(entry.content, bytes):
            target.write_bytes(entry.content)
        if entry.kind == "file" and hash_file(target) != entry.described()["sha256"]:
            raise InnkeeperError(f"{entry.content!s} changed while it was copied", hint="build again")
    plan = {"files": [entry.described() for entry in entries], "packages": sorted(set(guest.root.packages)), "base": base}
    (work / "plan.json").write_text(json.dumps(plan))
