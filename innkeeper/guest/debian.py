"""Debian for the builder: the base system, apt's sources, and the list of installed packages.

mmdebstrap(1) makes the base, of packages that are files. The sources of apt are those of this host.
"""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from innkeeper import programs
from innkeeper.errors import InnkeeperError
from innkeeper.guest import archives, foreign
from innkeeper.guest.mirror import Mirror, usable_mirrors

LIST_PACKAGES = "dpkg-query -W -f '${db:Status-Abbrev}|${Package}|${Version}|${Architecture}\\n' | grep '^ii'"
"""A shell command that prints the installed packages. `installed` parses its output."""


def mmdebstrap(
    archive: Path, suite: str, include: Sequence[str], epoch: int, log: Path, *, packages: Sequence[Path] = (), architecture: str = ""
) -> None:
    """Make a minimal Debian system with the packages `include` as a tar archive (mmdebstrap(1)).

    It consists of `packages`, which are archives, or without any of what this host's mirror has
    now. An ordinary user needs user namespaces and newuidmap for it. `epoch` is the
    SOURCE_DATE_EPOCH of the archive. `architecture` is another one than this machine's, or empty.
    Raises InnkeeperError.
    """
    root = os.geteuid() == 0
    program = programs.require_all(["mmdebstrap"] if root else ["mmdebstrap", "newuidmap"])["mmdebstrap"]
    command = [str(program), f"--mode={'root' if root else 'unshare'}", "--variant=apt", "--format=tar", f"--include={','.join(include)}"]
    # mmdebstrap copies the first two files from the host. buildah provides them anew for each run.
    command += ['--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname"; : >"$1/etc/apt/sources.list"', suite, str(archive)]
    shown = " ".join(command[:4])
    with tempfile.TemporaryDirectory(prefix="innkeeper-") as scratch, open(log, "a") as file:
        # An unprivileged run uses mapped user ids, which must be able to enter the folder and read
        # the packages.
        os.chmod(scratch, 0o755)
        if packages:
            line = archives.repository(Path(scratch) / "packages", packages, suite)
            command.append(line.format(f"copy://{scratch}/packages"))
        else:
            command += sources(Path(scratch), suite)
        environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8", "TMPDIR": scratch}
        if architecture:
            # It would ask arch-test whether programs can be emulated.
            command[1:1] = [f"--arch={foreign.MACHINES[architecture].debian}", "--skip=check/qemu"]
            emulator = foreign.find(architecture)
            command = command if emulator is None else emulator.command(command, environment)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode != 0:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise InnkeeperError(f"{shown} failed with status {done.returncode}:\n{last}")


def installed(listed: str) -> set[tuple[str, str, str]]:
    """Return name, version and architecture of each package in the output of LIST_PACKAGES."""
    rows = [line.split("|") for line in listed.splitlines()]
    return {(row[1], row[2], row[3]) for row in rows}


def sources(folder: Path, suite: str) -> list[str]:
    """Return the sources.list(5) lines for `suite`.

    A key block of the host's apt is written to `folder`.
    """
    lines: list[str] = []
    for found in usable_mirrors():
        keyring = _keyring(found, folder)
        suites = [f"{suite}-security"] if found.security else [suite, f"{suite}-updates"]
        lines += [found.sources_line(name, str(keyring or "")) for name in suites]
    return lines


def _keyring(found: Mirror, folder: Path) -> Path | None:
    """Return the keyring file that a mirror's entry refers to, or None if it refers to none.

    A key block inside the entry is written to a file in `folder`.
    """
    if found.signed_by.startswith("-----BEGIN"):
        path = folder / f"{hashlib.sha256(found.signed_by.encode()).hexdigest()[:16]}.asc"
        path.write_text(found.signed_by + "\n")
        return path
    path = Path(found.signed_by.replace(",", " ").partition(" ")[0])
    return path.resolve() if path.is_absolute() and path.exists() else None
