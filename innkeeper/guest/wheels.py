"""Python packages as files: what `agent/requirements.lock` names, taken once and kept in the store.

    with builder:
        mounts = fetch(builder, lock, log)
        builder.run(["pip", "install", ...], mounts=mounts, env=OFFLINE)

    <store>/.archives/python-SUITE/

Each Debian release and architecture has its folder, because its Python needs wheels of its own. pip
checks the hashes when it downloads a file, and when it installs one.
"""

import re
from pathlib import Path

from innkeeper import files
from innkeeper.errors import InnkeeperError
from innkeeper.files import hash_file
from innkeeper.guest.archives import FOLDER
from innkeeper.guest.builder import Builder

INSIDE = "/run/innkeeper/wheels"
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": INSIDE}
"""The environment in which pip takes the files, and asks no index."""
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*$", re.MULTILINE)


def requirements(lock: str) -> dict[tuple[str, str], list[str]]:
    """Return the locked packages: name and version -> sha256 of each archive that is allowed."""
    found = _REQUIREMENT.findall(lock.replace("\\\n", " "))
    return {(name, version): re.findall("sha256:([0-9a-f]{64})", hashes) for name, version, hashes in found}


def fetch(builder: Builder, lock: Path, log: Path) -> dict[Path, str]:
    """Have the store hold an archive of each locked package, and return the mount for pip.

    `builder` is entered. Raises InnkeeperError, by name, for a file that is not what the lock file
    names.
    """
    folder = builder.store.root / FOLDER / f"python-{builder.suite}{builder.architecture and f'-{builder.architecture}'}"
    folder.mkdir(parents=True, exist_ok=True)
    mounts = {folder: INSIDE}
    with files.locked(folder.with_suffix(".lock")):
        if _missing(folder, lock):
            words = ["--quiet", "--require-hashes", "--no-deps", "--no-build-isolation", "--no-cache-dir", "--dest", INSIDE]
            inside = {lock: "/requirements.lock:ro"}
            builder.run(["pip", "download", *words, "-r", "/requirements.lock"], mounts=mounts | inside, log=log, network=True)
    return {folder: f"{INSIDE}:ro"}


def _missing(folder: Path, lock: Path) -> bool:
    """Return whether the folder lacks an archive.

    Raises InnkeeperError for one with another content than the lock file names.
    """
    kept = {path: hash_file(path) for path in sorted(folder.iterdir())}
    missing = False
    for (name, version), hashes in requirements(lock.read_text()).items():
        stem = re.compile(rf"{re.sub('[-_.]+', '[-_.]+', name)}-{re.escape(version)}(-|\.tar\.|\.zip)", re.IGNORECASE)
        known = [path for path in kept if stem.match(path.name)]
        for path in known:
            if kept[path] not in hashes:
                hint = f"remove {path}: it is downloaded again then"
                raise InnkeeperError(f"{path.name} in the store is not the one of {lock.name}: its sha256 is another one", hint=hint)
        missing |= not known
    return missing
