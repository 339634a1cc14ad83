"""Debian for the builder: the base by mmdebstrap, apt's sources as this host has them, and the list of what was installed."""

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
"""A shell script that prints what is installed, then what apt's lists tell of those packages; `package_list` reads it."""


def mmdebstrap(archive: Path, suite: str, packages: Sequence[str], epoch: int, log: Path) -> None:
    """Make a minimal Debian as a tar archive (mmdebstrap(1)). An ordinary user needs user namespaces and newuidmap for it."""
    root = os.geteuid() == 0
    program = programs.require_all(["mmdebstrap"] if root else ["mmdebstrap", "newuidmap"])["mmdebstrap"]
    command = [str(program), f"--mode={'root' if root else 'unshare'}", "--variant=apt", "--format=tar", f"--include={','.join(packages)}"]
    # mmdebstrap copies these two from the host; buildah provides them for each run.
    command += ['--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname"', suite, str(archive)]
    with tempfile.TemporaryDirectory(prefix="innkeeper-") as scratch, open(log, "w") as file:
        # The users that an unprivileged run is mapped to must be able to enter it, and to read the keys.
        os.chmod(scratch, 0o755)
        command += sources(Path(scratch), suite)
        environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8", "TMPDIR": scratch}
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode != 0:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise InnkeeperError(f"{' '.join(command[:4])} failed with status {done.returncode}:\n{last}")


def sources_mounts(folder: Path, suite: str) -> dict[Path, str]:
    """apt's sources and keys as this host has them, to bind into the builder for one command. Files are written to `folder`."""
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
    """apt-get's option for the CA certificates of this host."""
    return ["-o", f"Acquire::https::CAInfo={proxy_and_ca.CA_INSIDE}"] if proxy_and_ca.ca_bundle() else []


def package_list(listed: str) -> str:
    """What LIST_PACKAGES printed, as sorted JSON: `name`, `version`, `architecture`, and `sha256` of the archive where it is told."""
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
    """Return sources.list lines for `suite`, or nothing, for mmdebstrap's default, where the host's apt knows no Debian mirror."""
    lines: list[str] = []
    for found in host_mirrors():
        keyring = _keyring(found, folder)
        path = "" if keyring is None else _inside(keyring) if inside else str(keyring)
        suites = [f"{suite}-security"] if found.security else [suite, f"{suite}-updates"]
        lines += [found.sources_line(name, path) for name in suites]
    return lines if any(f" {suite} " in line for line in lines) else []


def _keyring(found: Mirror, folder: Path) -> Path | None:
    """The keyring that a mirror's entry names, as a file; a key block in the entry itself is written to one in `folder`."""
    if found.signed_by.startswith("-----BEGIN"):
        path = folder / f"{hashlib.sha256(found.signed_by.encode()).hexdigest()[:16]}.asc"
        path.write_text(found.signed_by + "\n")
        return path
    path = Path(found.signed_by.replace(",", " ").partition(" ")[0])
    return path.resolve() if path.is_absolute() and path.exists() else None


def _inside(keyring: Path) -> str:
    return f"/run/innkeeper/keyrings/{keyring.name}"
