"""Debian's packages as files: taken from the mirror once, kept in the store, checked at each use.

    files = fetch(store, packages, log)
    repository(folder, files, "trixie")      # a local repository for apt, with exactly these

    <store>/.archives/NAME_VERSION_ARCHITECTURE.deb

The archives are downloaded by apt's helper, so that apt's settings (proxies, certificates) hold. A
package is looked for by its path in the mirror's pool: it need not be in an index any more.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from innkeeper import files, programs
from innkeeper.errors import InnkeeperError
from innkeeper.files import hash_file
from innkeeper.guest.mirror import locations
from innkeeper.guest.pins import Package
from innkeeper.guest.store import Store

FOLDER = ".archives"
HELPERS = ("/usr/lib/apt/apt-helper", "/usr/libexec/apt/apt-helper")
"""Where apt has the program that downloads files."""
SHOWN = 6
"""Packages that an error names. The log has all of them."""


def fetch(store: Store, packages: Sequence[Package], log: Path) -> list[Path]:
    """Return the archives of `packages` in the store. Download those that are not there.

    Raises InnkeeperError, by name, for an archive that is not the one that is asked for, and for
    packages that the mirror does not have.
    """
    folder = store.root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder / ".lock"):
        missing = [one for one in packages if not (folder / one.file).exists()]
        if missing:
            _download(store, missing, folder, log)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda one: _check(one, folder / one.file), packages))
    return [folder / one.file for one in packages]


def repository(folder: Path, archives: Sequence[Path], suite: str) -> str:
    """Make a repository for apt in `folder`.

    Return its line for sources.list(5), without the address. Its index has the hash of each
    archive, so that apt checks it again.
    """
    folder.mkdir(parents=True)
    for archive in archives:
        _link(archive, folder / archive.name)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        index = "".join(pool.map(_stanza, archives)).encode()
    (folder / "Packages").write_bytes(index)
    (folder / "Release").write_text(
        f"Suite: {suite}\nCodename: {suite}\nSHA256:\n {hashlib.sha256(index).hexdigest()} {len(index)} Packages\n"
    )
    folder.chmod(0o755)  # an ordinary user's mmdebstrap reads all of it as another user
    for file in folder.iterdir():
        file.chmod(0o644)
    return "deb [trusted=yes] {} ./"


def _check(package: Package, archive: Path) -> None:
    if archive.stat().st_size != package.size or hash_file(archive) != package.sha256:
        raise InnkeeperError(
            f"{archive.name} in the store is not the package that was asked for: its size or sha256 is another one",
            hint=f"remove {archive}: it is downloaded again then",
        )


def _download(store: Store, packages: Sequence[Package], folder: Path, log: Path) -> None:
    """Download archives from the first mirror that has them.

    Raises InnkeeperError if one cannot be had.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as name:
        part, told = Path(name), ""
        missing = list(packages)
        for attempt in range(2):
            wanted = [(one, places[attempt]) for one in missing if len(places := locations(one.path)) > attempt]
            told += _helped(part, wanted, log) if wanted else ""
            for one, _ in wanted:
                if (part / one.file).exists():
                    (part / one.file).chmod(0o644)
                    _check(one, part / one.file)
                    (part / one.file).rename(folder / one.file)
            missing = [one for one in missing if not (folder / one.file).exists()]
        if missing:
            raise _unavailable(missing, told, store)


def _helped(part: Path, wanted: Sequence[tuple[Package, str]], log: Path) -> str:
    """Run apt's helper, and return what it printed. It goes on after a file that it cannot get."""
    words = [word for one, uri in wanted for word in (uri, str(part / one.file), f"SHA256:{one.sha256}")]
    command = [helper(), "-o", "APT::Sandbox::User=root", "download-file", *words]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=_environment(), check=False
    )
    with open(log, "a") as file:
        file.write(done.stdout + done.stderr)
    return done.stdout + done.stderr


def _unavailable(missing: Sequence[Package], told: str, store: Store) -> InnkeeperError:
    """Return the error for packages that the mirror has no more, or if it cannot be reached."""
    names = ", ".join(one.key for one in missing[:SHOWN]) + (f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else "")
    gone = len(re.findall(r"^\s+404\b", told, re.MULTILINE))
    if gone:
        return InnkeeperError(f"the mirror no longer has packages that {_source(store)} names: {names}", hint=store.pins.hint)
    reason = next((line.removeprefix("E: ") for line in told.splitlines() if line.startswith("E: ")), "no reason given")
    return InnkeeperError(f"packages cannot be downloaded: {names}: {reason}", hint="a mirror of Debian must be reachable")


def _source(store: Store) -> str:
    return str(store.pins.file or "the lock file")


def helper() -> str:
    """Return the path of apt's helper. Raises InnkeeperError."""
    found = [path for path in HELPERS if os.access(path, os.X_OK)]
    if not found:
        programs.require("mmdebstrap")  # comes with apt
        found = [path for path in HELPERS if os.access(path, os.X_OK)]
    if not found:
        raise InnkeeperError(f"apt's helper is not there: {' or '.join(HELPERS)}", hint="install apt")
    return found[0]


def _environment() -> dict[str, str]:
    return os.environ | {"LC_ALL": "C.UTF-8"}


def _stanza(archive: Path) -> str:
    """Return the entry of an archive in an index of packages."""
    done = subprocess.run(["dpkg-deb", "-f", str(archive)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InnkeeperError(f"{archive.name} is not a Debian package: {done.stderr.strip()}")
    control = done.stdout.rstrip("\n")
    return f"{control}\nFilename: ./{archive.name}\nSize: {archive.stat().st_size}\nSHA256: {hash_file(archive)}\n\n"


def _link(archive: Path, target: Path) -> None:
    try:
        target.hardlink_to(archive)
    except OSError:  # another file system
        shutil.copyfile(archive, target)
