"""Runs inside the builder: Debian's packages there, what they depend on, and the files of each."""

import re
import subprocess
from pathlib import Path

WITHOUT = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/info/", "/usr/share/locale/", "/usr/share/lintian/", "/usr/share/bug/")
"""Folders that a guest has no use for."""
FIELDS = "${Package}\\t${Version}\\t${Architecture}\\t${Provides}\\t${Pre-Depends}, ${Depends}\\t${db:Status-Abbrev}\\n"


class Packages:
    """The installed packages by name."""

    def __init__(self) -> None:
        listed = subprocess.run(["dpkg-query", "-W", "-f", FIELDS], capture_output=True, text=True, check=True).stdout
        rows = [line.split("\t") for line in listed.splitlines()]
        self.rows = {row[0]: row for row in rows if row[5].startswith("ii")}
        self.provided: dict[str, str] = {}
        for name, row in sorted(self.rows.items()):
            for provided in self._names(row[3]):
                self.provided.setdefault(provided, name)

    def version(self, name: str) -> str:
        """Return the version of a package."""
        return self.rows[name][1]

    def architecture(self, name: str) -> str:
        """Return the architecture of a package."""
        return self.rows[name][2]

    def closure(self, wanted: list[str], base: set[str]) -> list[str]:
        """Return the packages `wanted` and their dependencies.

        Packages of `base` are left out unless they are themselves wanted.
        """
        found: dict[str, None] = {}
        waiting = [self._installed(name) or name for name in wanted]
        while waiting:
            name = waiting.pop(0)
            if name not in found:
                found[name] = None
                waiting += [needed for needed in self._needed(name) if needed not in base]
        return sorted(found)

    def files(self, name: str) -> list[Path]:
        """Return a package's files and links as in a merged /usr, without documentation."""
        listed = subprocess.run(["dpkg-query", "-L", name], capture_output=True, text=True, check=True).stdout.splitlines()
        paths = [Path(merged(line)) for line in listed if line.startswith("/") and not line.startswith(WITHOUT)]
        return [path for path in paths if path.is_symlink() or path.is_file()]

    def _needed(self, name: str) -> list[str]:
        needed = []
        for alternatives in self.rows[name][4].split(","):
            installed = [found for one in alternatives.split("|") if (found := self._installed(one))]
            needed += installed[:1]
        return needed

    def _installed(self, text: str) -> str | None:
        name = next(iter(self._names(text)), "")
        return name if name in self.rows else self.provided.get(name)

    @staticmethod
    def _names(text: str) -> list[str]:
        """Return the package names of a dependency field, without versions and architectures."""
        return [re.split(r"[\s:(\[]", part.strip(), maxsplit=1)[0] for part in text.split(",") if part.strip()]


def merged(path: str) -> str:
    """Return where a path is with a merged /usr, in which /bin, /sbin and /lib are links."""
    return re.sub(r"^/(bin|sbin|lib|lib64)/", r"/usr/\1/", path)
