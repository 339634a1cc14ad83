"""A thin typed wrapper of buildah, with a storage of its own: nothing of the user's containers is touched.

Each method is one buildah command of the same name. As root, buildah runs in mount and pid namespaces of its own, so
that no mount and no process of it outlives the command, whatever kills it. buildah(1), unshare(1), setpriv(1).
"""

import os
import re
import shlex
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from innkeeper import programs
from innkeeper.errors import InnkeeperError

MINIMUM = (1, 28)
"""The oldest version this is tested with (Debian 12)."""

_TAIL = 12
"""Lines of output shown when a command fails."""


class BuildahError(InnkeeperError):
    """A buildah command failed: its command line, status and last lines."""


class Buildah:
    """buildah with its images and containers below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def version(self) -> tuple[int, int]:
        """Major and minor version; raises if it is older than what this wrapper knows."""
        told = subprocess.run([programs.require("buildah"), "--version"], capture_output=True, text=True, check=False).stdout
        found = re.search(r"version (\d+)\.(\d+)", told)
        version = (int(found[1]), int(found[2])) if found else (0, 0)
        if version < MINIMUM:
            raise InnkeeperError(f"buildah says {told.strip()!r}", hint=f"version {MINIMUM[0]}.{MINIMUM[1]} or later is needed")
        return version

    @cached_property
    def driver(self) -> str:
        """The storage driver: overlay where the file system and the kernel permit it, else vfs. Found out once, kept in a file."""
        kept = self.folder / "driver"
        if kept.exists():
            return kept.read_text().strip()
        self.folder.mkdir(parents=True, exist_ok=True)
        _ = self.version
        probe = self._command("overlay", ["info"])
        driver = "overlay" if subprocess.run(probe, capture_output=True, env=_environment(), check=False).returncode == 0 else "vfs"
        kept.write_text(driver + "\n")
        return driver

    def from_(self, image: str, name: str) -> None:
        """Make the working container `name` of a local image, or of `scratch`."""
        self._run("from", "--pull-never", "--name", name, image)

    def add(self, container: str, source: Path, target: str) -> None:
        """Unpack a tar archive, or copy a file, into a container."""
        self._run("add", "--quiet", container, str(source), target)

    def copy(self, container: str, source: Path, target: str) -> None:
        """Copy a file or the content of a folder into a container."""
        self._run("copy", "--quiet", container, str(source), target)

    def run(
        self,
        container: str,
        argv: Sequence[str],
        *,
        mounts: Mapping[Path, str] | None = None,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> str:
        """Run a program in a container and return its standard output, or with `log` append all output there.

        `mounts` maps paths here to paths there, writable unless the path there ends in `:ro`.
        """
        options = [word for name, value in (env or {}).items() for word in ("--env", f"{name}={value}")]
        for here, there in (mounts or {}).items():
            options += ["--volume", f"{here}:{there}"]
        return self._run("run", "--isolation", "chroot", *options, container, "--", *argv, log=log)

    def commit(self, container: str, image: str) -> None:
        """Keep a container's file system as a local image, not compressed."""
        self._run("commit", "--quiet", "--disable-compression", container, image)

    def rm(self, container: str) -> None:
        """Remove a working container."""
        self._run("rm", container)

    def rmi(self, image: str) -> None:
        """Remove an image."""
        self._run("rmi", "--force", image)

    def has_image(self, image: str) -> bool:
        """Whether there is a local image of that name."""
        found = self._run("images", "--format", "{{.ID}}", "--filter", f"reference={image}")
        return bool(found.strip())

    def containers(self) -> list[str]:
        """The names of all working containers."""
        return self._run("containers", "--format", "{{.ContainerName}}").split()

    def _run(self, *arguments: str, log: Path | None = None) -> str:
        command = self._command(self.driver, arguments)
        if log is None:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=_environment(), check=False
            )
            if done.returncode != 0:
                raise _failure(arguments, done.returncode, (done.stdout + done.stderr).splitlines())
            return done.stdout
        with open(log, "a") as file:
            file.write(f"+ {shlex.join(arguments)}\n")
            file.flush()
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=_environment(), check=False
            ).returncode
        if status != 0:
            with open(log, errors="replace") as file:
                error = _failure(arguments, status, list(deque(file, maxlen=_TAIL)))
            error.hint = f"the whole output is in {log}"
            raise error
        return ""

    def _command(self, driver: str, arguments: Sequence[str]) -> list[str]:
        prefix = ["setpriv", "--pdeathsig", "KILL"]
        if os.geteuid() == 0:
            # The pid namespace takes everything with it when its first process dies, the mount namespace every mount.
            prefix += ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"]
        storage = ["--root", str(self.folder / "root"), "--runroot", str(self.folder / "run"), "--storage-driver", driver]
        if driver == "overlay":
            # Without this the driver leaves a bind mount of its own folder behind.
            storage += ["--storage-opt", "overlay.skip_mount_home=true"]
        return [*prefix, str(programs.require("buildah")), *storage, *arguments]


def _environment() -> dict[str, str]:
    """What buildah itself gets; user configuration that would change its storage is kept out."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STORAGE_", "BUILDAH_", "CONTAINERS_"))}
    return kept | {"BUILDAH_ISOLATION": "chroot", "LC_ALL": "C.UTF-8"}


def _failure(arguments: Sequence[str], status: int, lines: list[str]) -> BuildahError:
    shown = "\n".join(line.rstrip() for line in lines[-_TAIL:])
    return BuildahError(f"buildah {shlex.join(arguments)} failed with status {status}:\n{shown}")
