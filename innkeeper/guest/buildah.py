"""A thin typed wrapper around buildah, with a storage of its own.

The user's own images and containers are never touched. Each public method runs the buildah command
of the same name.

As root, every command runs in new mount and pid namespaces, so that no mount and no process
outlives the command, whatever kills it. See buildah(1), unshare(1) and setpriv(1).
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
from innkeeper.guest.foreign import Emulator

MINIMUM = (1, 28)
"""The oldest buildah version that this wrapper is tested with (Debian 12)."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a container's programs are looked for, as buildah has it."""

_TAIL = 12
"""Lines of output to show when a command fails."""

_END = "innkeeper: end of output"
_ATTEMPTS = 10


class BuildahError(InnkeeperError):
    """A failed buildah command, with its command line, exit status and last lines of output."""


class Buildah:
    """A buildah whose images and containers are stored below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def version(self) -> tuple[int, int]:
        """Return the major and minor version. Raises InnkeeperError if it is older than MINIMUM."""
        output = subprocess.run([programs.require("buildah"), "--version"], capture_output=True, text=True, check=False).stdout
        found = re.search(r"version (\d+)\.(\d+)", output)
        version = (int(found[1]), int(found[2])) if found else (0, 0)
        if version < MINIMUM:
            raise InnkeeperError(f"buildah is too old: {output.strip()!r}", hint=f"install version {MINIMUM[0]}.{MINIMUM[1]} or later")
        return version

    @cached_property
    def driver(self) -> str:
        """Return the storage driver: overlay if file system and kernel support it, else vfs.

        The driver is probed once, and the answer is kept in a file.
        """
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
        """Create the working container `name` from a local image, or from `scratch`."""
        self._run("from", "--pull-never", "--name", name, image)

    def add(self, container: str, source: Path, target: str) -> None:
        """Unpack a tar archive into a container, or copy a file into it."""
        self._run("add", "--quiet", container, str(source), target)

    def copy(self, container: str, source: Path, target: str) -> None:
        """Copy a file, or the content of a folder, into a container."""
        self._run("copy", "--quiet", container, str(source), target)

    def run(
        self,
        container: str,
        argv: Sequence[str],
        *,
        mounts: Mapping[Path, str] | None = None,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        emulator: Emulator | None = None,
    ) -> str:
        """Run a program in a container and return its standard output.

        Now and then that takes more than one run (see `_whole_output`). With `log`, append all
        output to that file instead and return "". `mounts` maps host paths to paths in the
        container. They are writable unless the path in the container ends in `:ro`. `emulator` runs
        the program, for a container of another architecture.
        """
        if emulator is not None:
            binds = [(here, there.removesuffix(":ro"), there.endswith(":ro")) for here, there in (mounts or {}).items()]
            settings = {"PATH": PATH, "HOME": "/root", **(env or {})}
            storage = self._storage(self.driver)
            command = emulator.command(
                argv, settings, root=[*storage, "mount", container], release=[*storage, "umount", container], binds=binds
            )
            return self._execute([*_contained(), *command], ["run", container, "--", *argv], log)
        options = [word for name, value in (env or {}).items() for word in ("--env", f"{name}={value}")]
        for here, there in (mounts or {}).items():
            options += ["--volume", f"{here}:{there}"]
        options = ["run", "--isolation", "chroot", *options, container, "--"]
        if log is None:
            return self._whole_output(options, argv)
        return self._run(*options, *argv, log=log)

    def _whole_output(self, options: Sequence[str], argv: Sequence[str]) -> str:
        """Return the standard output of `buildah run`, which a last line proves to be whole.

        buildah copies the output of a container, and does not wait for the copy when the program
        has ended (chroot/run_common.go): on a busy machine its end is lost, or all of it, with
        status 0. Then the program is run again.
        """
        for _ in range(_ATTEMPTS):
            command = self._command(self.driver, [*options, "sh", "-c", f'"$@" && echo && echo "{_END}"', "sh", *argv])
            output = self._execute(command, [*options, *argv], None)
            if output.endswith(f"\n{_END}\n"):
                return output.removesuffix(f"\n{_END}\n")
        raise BuildahError(f"buildah {shlex.join([*options, *argv])} lost its output {_ATTEMPTS} times")

    def commit(self, container: str, image: str) -> None:
        """Save a container's file system as a local image, uncompressed."""
        self._run("commit", "--quiet", "--disable-compression", container, image)

    def rm(self, container: str) -> None:
        """Remove a working container."""
        self._run("rm", container)

    def has_image(self, image: str) -> bool:
        """Return whether a local image of that name exists."""
        found = self._run("images", "--format", "{{.ID}}", "--filter", f"reference={image}")
        return bool(found.strip())

    def containers(self) -> list[str]:
        """Return the names of all working containers."""
        return self._run("containers", "--format", "{{.ContainerName}}").split()

    def _run(self, *arguments: str, log: Path | None = None) -> str:
        return self._execute(self._command(self.driver, arguments), arguments, log)

    def _execute(self, command: Sequence[str], arguments: Sequence[str], log: Path | None) -> str:
        """Run a command, which `arguments` stand for in messages.

        Return its output, or append it to `log`.
        """
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
        return [*_contained(), *self._storage(driver), *arguments]

    def _storage(self, driver: str) -> list[str]:
        """Return buildah's command line up to what it is to do."""
        storage = ["--root", str(self.folder / "root"), "--runroot", str(self.folder / "run"), "--storage-driver", driver]
        if driver == "overlay":
            # Without this option the driver leaves a bind mount of its own folder behind.
            storage += ["--storage-opt", "overlay.skip_mount_home=true"]
        return [str(programs.require("buildah")), *storage]


def _contained() -> list[str]:
    """Return the words before a command with which nothing of it outlives us."""
    prefix = ["setpriv", "--pdeathsig", "KILL"]
    if os.geteuid() == 0:
        # The kernel kills every process of the pid namespace when its first process dies, and
        # unmounts everything in the mount namespace with its last process.
        prefix += ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"]
    return prefix


def _environment() -> dict[str, str]:
    """Return the environment for buildah, without user settings that would change its storage."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STORAGE_", "BUILDAH_", "CONTAINERS_"))}
    return kept | {"BUILDAH_ISOLATION": "chroot", "LC_ALL": "C.UTF-8"}


def _failure(arguments: Sequence[str], status: int, lines: list[str]) -> BuildahError:
    shown = "\n".join(line.rstrip() for line in lines[-_TAIL:])
    return BuildahError(f"buildah {shlex.join(arguments)} failed with status {status}:\n{shown}")
