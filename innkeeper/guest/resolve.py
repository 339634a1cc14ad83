"""Ask apt which packages a builder consists of, with the mirror's index of today.

Nothing is installed.

    with Resolver(suite) as resolver:
        packages = resolver.resolve(request, status)

apt runs on the host, with lists, status and settings of its own in a temporary folder. It checks
the signature of the index, from which the hashes come.
"""

import os
import re
import subprocess
import tempfile
import urllib.parse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from innkeeper import programs, progress
from innkeeper.errors import InnkeeperError
from innkeeper.guest import debian
from innkeeper.guest.pins import Package, Request

BASE = ("?essential", "apt", "ca-certificates")
"""What the base consists of: mmdebstrap's variant `apt`, and certificates."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_NO_PACKAGE = re.compile(r"^E: (Unable to locate package .+|Package .+ has no installation candidate)$", re.MULTILINE)
"""What apt prints of a package that Debian does not have."""
_SHOWN = ("Package", "Version", "Architecture", "SHA256", "Size", "Filename")


class NoPackage(InnkeeperError):
    """Debian has no package of that name."""


class Resolver:
    """apt with the index of one Debian release, which is fetched on entry."""

    def __init__(self, suite: str, architecture: str = "") -> None:
        """Use the index of `architecture`, or of this machine's if it is empty."""
        self.suite = suite
        self.architecture = ARCHITECTURES[architecture or os.uname().machine]
        self._folder = Path()
        self._kept = ExitStack()

    def __enter__(self) -> "Resolver":
        programs.require("mmdebstrap")  # comes with apt
        with ExitStack() as opened:
            self._folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="innkeeper-")))
            for name in ("state/lists/partial", "cache/archives/partial", "empty"):
                (self._folder / name).mkdir(parents=True)
            (self._folder / "sources.list").write_text("\n".join(debian.sources(self._folder, self.suite)) + "\n")
            (self._folder / "status").touch()
            with progress.step(f"reading the mirror's index of Debian {self.suite}"):
                self._apt("apt-get", "update")
            self._kept = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._kept.close()

    def resolve(self, request: Request, status: str) -> list[Package]:
        """Return the packages to install for a request, in order of their names.

        Raises NoPackage, InnkeeperError. `status` is dpkg's file of that name, of what the packages
        are added to.
        """
        (self._folder / "status").write_text(status)
        if request.only:
            return self._shown([*map(self._newest, request.packages)])
        wanted = request.packages or BASE
        told = self._apt("apt-get", "install", "--print-uris", "--no-install-recommends", "-y", *wanted)
        files = [line.split()[1] for line in told.splitlines() if line.startswith("'")]
        return self._shown([f"{name}={version}" for name, version in map(_of_file, files)])

    def status(self, packages: Sequence[Package]) -> str:
        """Return a status file of dpkg in which `packages` are installed."""
        stanzas = self._apt("apt-cache", "show", "--no-all-versions", *(f"{one.name}={one.version}" for one in packages)).strip()
        return "".join(f"{stanza}\nStatus: install ok installed\n\n" for stanza in stanzas.split("\n\n"))

    def _newest(self, name: str) -> str:
        """Return the package that `name` stands for.

        It is itself, or the one that a metapackage of the kernel depends on.
        """
        told = self._apt("apt-cache", "depends", name)
        found = re.search(r"^ *Depends: (linux-image-\S+)$", told, re.MULTILINE) if name.startswith("linux-image-") else None
        return found[1] if found else name

    def _shown(self, names: list[str]) -> list[Package]:
        if not names:
            return []
        told = self._apt("apt-cache", "show", "--no-all-versions", *names)
        found = set()
        for stanza in told.strip().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in stanza.splitlines() if line.partition(": ")[0] in _SHOWN)
            name, version, architecture, sha256, size, path = (fields[name] for name in _SHOWN)
            found.add(Package(name, version, architecture, sha256=sha256, size=int(size), path=path))
        return sorted(found)

    def _apt(self, program: str, *arguments: str) -> str:
        """Run a program of apt and return its output.

        The host's settings about the network (proxies) hold.
        """
        settings = {
            "Dir::State": self._folder / "state",
            "Dir::State::status": self._folder / "status",
            "Dir::Cache": self._folder / "cache",
            "Dir::Etc::sourcelist": self._folder / "sources.list",
            **dict.fromkeys(("Dir::Etc::sourceparts", "Dir::Etc::preferencesparts"), self._folder / "empty"),
            "Dir::Etc::preferences": "/dev/null",
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Default-Release": "",
            "APT::Sandbox::User": "root",
            "APT::Install-Recommends": "0",
            "Acquire::Languages": "none",
            "Debug::NoLocking": "1",
        }
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        command = [program, "-qq", *options, *arguments]
        environment = os.environ | {"LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False)
        if match := _NO_PACKAGE.search(done.stderr):
            raise NoPackage(match[1])
        if done.returncode != 0 or re.search("^[EW]: Failed to fetch", done.stderr, re.MULTILINE):
            raise InnkeeperError(f"{program} {arguments[0]} failed with status {done.returncode}:\n{done.stderr.strip()[-1200:]}")
        return done.stdout


def _of_file(file: str) -> tuple[str, str]:
    """Return name and version of a package from the name of its archive, as apt writes it."""
    name, version, _ = urllib.parse.unquote(file).removesuffix(".deb").split("_")
    return name, version
