"""How urgent a newer version of a Debian package is, by its changelog (deb-changelog(5)).

The changelog is in the package itself: no service is asked. A package whose documentation is that
of another one has none.
"""

import gzip
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

URGENCIES = ("low", "medium", "high", "emergency", "critical")
"""Debian's words, from the least urgent one."""
UNKNOWN = "unknown"
_ENTRY = re.compile(r"^\S+ \((?P<version>\S+)\) [^;\n]*;.*?\burgency=(?P<urgency>\w+)", re.MULTILINE)


def urgency(archive: Path, name: str, old: str) -> str:
    """Return the greatest urgency of the changes in `archive` since version `old`, or UNKNOWN.

    `name` is the package's.
    """
    text = _changelog(archive, name)
    return of_text(text, old, _is_newer) if text else UNKNOWN


def of_text(text: str, old: str, is_newer: Callable[[str, str], bool]) -> str:
    """Return the greatest urgency of the entries after version `old`, or UNKNOWN without any."""
    found = UNKNOWN
    for match in _ENTRY.finditer(text):
        if not is_newer(match["version"], old):
            break
        word = match["urgency"].lower()
        if word in URGENCIES and (found == UNKNOWN or URGENCIES.index(word) > URGENCIES.index(found)):
            found = word
    return found


def _is_newer(version: str, old: str) -> bool:
    """Return whether a version of the source is newer than one of the binary package.

    The binary one may be a rebuild (`+b1`).
    """
    command = ["dpkg", "--compare-versions", version, "gt", re.sub(r"\+b\d+$", "", old)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _changelog(archive: Path, name: str) -> str:
    """Return the text of the changelog in a package, or "" if it has none."""
    members = {f"./usr/share/doc/{name}/changelog{kind}.gz" for kind in ("", ".Debian")}
    found: dict[str, str] = {}
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            for path, content in _files(process.stdout, members):
                found[path] = gzip.decompress(content).decode(errors="replace")
        except (tarfile.TarError, OSError, EOFError):
            return ""
    # A package with a changelog of its authors has Debian's beside it.
    return found.get(f"./usr/share/doc/{name}/changelog.Debian.gz") or found.get(f"./usr/share/doc/{name}/changelog.gz", "")


def _files(stream: IO[bytes], names: set[str]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            if member.name in names and member.isfile() and (file := tar.extractfile(member)) is not None:
                yield member.name, file.read()
