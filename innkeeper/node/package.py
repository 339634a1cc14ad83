"""A Debian package of what `install` installs: the same files, in the folders of a distribution."""

import os
import subprocess
import tempfile
from pathlib import Path

from innkeeper import __version__, programs
from innkeeper.errors import InnkeeperError
from innkeeper.guest import Artifacts
from innkeeper.installation import copy_file
from innkeeper.node import packages
from innkeeper.node.install import PYTHON, Layout

NAME = "innkeeper-shim"
LAYOUT = Layout(Path("/usr/lib/innkeeper"), Path("/etc"), Path("/usr/bin"))
CONTROL = f"""\
Package: {NAME}
Version: {__version__}
Architecture: amd64
Maintainer: The authors of Innkeeper <innkeeper@localhost>
Section: admin
Priority: optional
Depends: python3 (>= 3.11), qemu-system-x86, virtiofsd | qemu-system-common, util-linux
Recommends: containerd
Description: containerd shim that runs containers and pods in virtual machines
 The runtime io.containerd.innkeeper.v2 gives each container or pod a kernel of
 its own in a small virtual machine. The guest is included.
"""
POSTINST = f"""\
#!/bin/sh
set -e
{PYTHON} -I -m compileall -q {LAYOUT.library}
"""
PRERM = f"""\
#!/bin/sh
set -e
find {LAYOUT.library} -depth -name __pycache__ -exec rm -r {{}} +
"""


def make(built: Artifacts, folder: Path) -> Path:
    """Write the package to `folder`. Return its path. Raises InnkeeperError and OSError."""
    program = programs.find("dpkg-deb")
    if program is None:
        raise InnkeeperError("dpkg-deb is missing: packages can be made on Debian and Ubuntu only")
    sources = packages.sources()
    if bound := [source for source in sources.values() if source.suffix == ".so" and ".abi3." not in source.name]:
        raise InnkeeperError(f"{bound[0].name} is for one version of Python only, and the package is for all")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{NAME}_{__version__}_amd64.deb"
    with tempfile.TemporaryDirectory(prefix="innkeeper-") as scratch:
        stage(Path(scratch), built, sources)
        argv = [str(program), "--root-owner-group", "-Zxz", "--build", scratch, str(target)]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise InnkeeperError(f"dpkg-deb failed with status {done.returncode}: {done.stdout.strip()[-400:]}")
    return target


def stage(root: Path, built: Artifacts, sources: dict[Path, Path]) -> None:
    """Lay the package out below `root`, with its control files."""
    root.chmod(0o755)
    for path, source in LAYOUT.copies(built, sources).items():
        copy_file(source, _place(root, path))
    texts = LAYOUT.texts({})
    control = Path("/DEBIAN")
    plain = {control / "control": CONTROL, control / "conffiles": _conffiles(texts), **texts}
    programs_ = {control / "postinst": POSTINST, control / "prerm": PRERM, **LAYOUT.launchers(PYTHON)}
    for mode, group in ((0o644, plain), (0o755, programs_)):
        for path, text in group.items():
            place = _place(root, path)
            place.write_text(text)
            place.chmod(mode)
    link, target = LAYOUT.link
    _place(root, link).symlink_to(os.path.relpath(target, link.parent))


def _place(root: Path, path: Path) -> Path:
    """Return where `path` is below `root`, in a folder that exists."""
    place = root / path.relative_to("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _conffiles(texts: dict[Path, str]) -> str:
    """Return the list of files that dpkg leaves to the operator."""
    return "".join(f"{path}\n" for path in texts if path.is_relative_to("/etc"))
