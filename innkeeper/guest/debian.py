"""Debian for the builder: the base system, apt's sources, and the list of installed packages.

mmdebstrap(1) makes the base. The sources of apt are those of this host.
"""

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from innkeeper import programs
from innkeeper.errors import InnkeeperError
from innkeeper.guest import proxy_and_ca
from innkeeper.guest.mirror import Mirror, host_mirrors

LIST_PACKAGES = """
dpkg-query -W -f '${db:Status-Abbrev}|${Package}|${Version}|${Architecture}\\n' | grep '^ii'
echo --
dpkg-query -W -f '${Package}=${Version}\\n' | xargs apt-cache show 2>/dev/null | grep -E '^(Package|Version|SHA256):'
"""
"""A shell script that prints the installed packages, then what apt's lists contain about them.

`package_list` parses its output.
"""


def mmdebstrap(archive: Path, suite: str, packages: Sequence[str], epoch: int, log: Path) -> None:
    """Make a minimal Debian system as a tar archive (mmdebstrap(1)).

    An ordinary user needs user namespaces and newuidmap for it. `epoch` is the SOURCE_DATE_EPOCH of
    the archive. Raises InnkeeperError.
    """
    root = os.geteuid() == 0
    program = programs.require_all(["mmdebstrap"] if root else ["mmdebstrap", "newuidmap"])["mmdebstrap"]
    command = [str(program), f"--mode={'root' if root else 'unshare'}", "--variant=apt", "--format=tar", f"--include={','.join(packages)}"]
    # mmdebstrap copies these two files from the host. buildah provides them anew for each run.
    command += ['--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname"', suite, str(archive)]
    with tempfile.TemporaryDirectory(prefix="innkeeper-") as scratch, open(log, "w") as file:
        # An unprivileged run uses mapped user ids, which must be able to enter the folder and read
        # the keys.
        os.chmod(scratch, 0o755)
        command += sources(Path(scratch), suite)
        environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8", "TMPDIR": scratch}
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode != 0:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise InnkeeperError(f"{' '.join(command[:4])} failed with status {done.returncode}:\n{last}")


def sources_mounts(folder: Path, suite: str) -> dict[Path, str]:
    """Return bind mounts that give the builder this host's apt sources and keys for one command.

    The files to bind are written to `folder`.
    """
    lines = sources(folder, suite, inside=True)
    if not lines:
        return {}
    listed = folder / "sources.list"
    listed.write_text("\n".join(lines) + "\n")
    binds = {listed: "/etc/apt/sources.list:ro"}
    for found in host_mirrors():
        if keyring := _keyring(found, folder):
            binds[keyring] = f"{_inside(keyring)}:ro"
    return binds


def apt_ca() -> list[str]:
    """Return the options that make apt-get trust the CA certificates of this host."""
    return ["-o", f"Acquire::https::CAInfo={proxy_and_ca.CA_INSIDE}"] if proxy_and_ca.ca_bundle() else []


def package_list(listed: str) -> str:
    """Convert the output of LIST_PACKAGES to sorted JSON.

    Each package has `name`, `version` and `architecture`, and `sha256` of its archive if apt knows
    it.
    """
    installed, _, shown = listed.partition("--\n")
    hashes: dict[tuple[str, str], str] = {}
    name = version = ""
    for line in shown.splitlines():
        field, _, value = line.partition(": ")
        if field == "Package":
            name = value
        elif field == "Version":
            version = value
        elif field == "SHA256":
            hashes[name, version] = value
    packages = []
    for line in sorted(installed.splitlines()):
        _, name, version, architecture = line.split("|")
        entry = {"name": name, "version": version, "architecture": architecture}
        if digest := hashes.get((name, version)):
            entry["sha256"] = digest
        packages.append(entry)
    return json.dumps(packages, indent=1, sort_keys=True) + "\n"


def sources(folder: Path, suite: str, *, inside: bool = False) -> list[str]:
    """Return the sources.list(5) lines for `suite`.

    The list is empty if this host's apt has no Debian mirror: mmdebstrap then uses its default
    mirror.
    """
    lines: list[str] = []
    for found in host_mirrors():
        keyring = _keyring(found, folder)
        path = "" if keyring is None else _inside(keyring) if inside else str(keyring)
        suites = [f"{suite}-security"] if found.security else [suite, f"{suite}-updates"]
        lines += [found.sources_line(name, path) for name in suites]
    return lines if any(f" {suite} " in line for line in lines) else []


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


def _inside(keyring: Path) -> str:
    return f"/run/innkeeper/keyrings/{keyring.name}"
