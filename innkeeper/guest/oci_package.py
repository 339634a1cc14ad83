"""The runtime command `innkeeper-oci` for hosts, as a frozen folder and as a Debian package.

The command is the agent's container core. It is frozen with the Python of an older Debian, whose C
library is the oldest that the command runs with. `bin/innkeeper-oci` is a link to a static
launcher, which executes the frozen program from a sealed copy in memory.
"""

import platform
from pathlib import Path

from innkeeper import __version__, paths, progress
from innkeeper.errors import InnkeeperError
from innkeeper.files import hash_file
from innkeeper.guest.builder import OLDER_SUITE, Builder
from innkeeper.guest.freeze import BUILDER_SCRIPTS, ENVIRONMENT, PACKAGES, install_packages, source_copied
from innkeeper.guest.pipeline import link
from innkeeper.guest.store import JSON, Store, hash_tree

FOLDER, PACKAGE = "innkeeper-oci", "innkeeper-oci.deb"
PROGRAM = f"{FOLDER}/usr/bin/innkeeper-oci"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
SOURCES = [
    "agent/__init__.py",
    "agent/run_to_completion.py",
    "agent/errors.py",
    "agent/log.py",
    "agent/worker.py",
    "agent/loop/**/*.py",
    "agent/container/**/*.py",
    "agent/linux/**/*.py",
    "agent/oci/**/*.py",
    "innkeeper/__init__.py",
    "innkeeper/wire/__init__.py",
    "innkeeper/wire/status.py",
]

_FREEZE = """
set -eu
mkdir /tmp/freeze
cd /tmp/freeze
python3 -m PyInstaller --log-level WARN --noconfirm --distpath dist --workpath work /inside/oci/oci.spec
root=/out/innkeeper-oci
library=$root/usr/lib/innkeeper-oci
mkdir -p $root/DEBIAN $root/usr/bin $root/usr/lib $root/usr/share/doc/innkeeper-oci
cp -R dist/innkeeper-oci $library
gcc -Os -static -Wall -Werror -Wl,--build-id=none -s -o $library/innkeeper-oci /inside/oci/launcher.c
ln -s ../lib/innkeeper-oci/innkeeper-oci $root/usr/bin/innkeeper-oci
cp /LICENSE $root/usr/share/doc/innkeeper-oci/copyright
glibc=$(dpkg-query -W -f '${Version}' libc6 | cut -d- -f1)
sed "s/@VERSION@/$VERSION/; s/@ARCHITECTURE@/$ARCHITECTURE/; s/@GLIBC@/$glibc/" /inside/oci/control >$root/DEBIAN/control
find $root -type d -exec chmod 755 {} +
find $root -type f -exec chmod 644 {} +
find $library -name '*.so*' -type f -exec chmod 755 {} +
chmod 755 $library/innkeeper-oci $library/program
find $root -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zxz --build $root /out/innkeeper-oci.deb
"""


def freeze_command(store: Store, project: Path) -> Path:
    """Freeze the command and return the step's folder.

    It contains the folder `innkeeper-oci`, laid out as a Debian package, and `innkeeper-oci.deb`.
    """
    architecture = ARCHITECTURES.get(platform.machine())
    if architecture is None:
        raise InnkeeperError(f"innkeeper-oci cannot be built for {platform.machine()}")
    builder = Builder(PACKAGES, store, OLDER_SUITE)
    site = install_packages(builder, project)
    inputs: dict[str, JSON] = {
        "builder": builder.id,
        "site": site.name,
        "source": hash_tree(project, SOURCES),
        "inside": hash_tree(BUILDER_SCRIPTS / "oci"),
        "licence": hash_file(project / "LICENSE"),
        "script": _FREEZE,
        "version": __version__,
    }

    def make(out: Path) -> None:
        with progress.step("freezing the runtime command"), builder:
            with source_copied(project, hash_tree(project, SOURCES), out) as source:
                mounts = {source: "/src:ro", site / "site": "/site:ro", BUILDER_SCRIPTS: "/inside:ro", out: "/out"}
                env = ENVIRONMENT | {"VERSION": __version__, "ARCHITECTURE": architecture}
                builder.run(["sh", "-c", _FREEZE], mounts=mounts | {project / "LICENSE": "/LICENSE:ro"}, env=env, log=store.log_of(out))

    return store.step("runtime-command", inputs, make)


def build_command(output: Path | None) -> Path:
    """Build the frozen command and return the path of its program.

    With `output`, links to the folder and the package are written there.
    """
    project = paths.project_root()
    made = freeze_command(Store(paths.store_root()), project)
    if output is not None:
        link({FOLDER: made / FOLDER, PACKAGE: made / PACKAGE}, output)
    return made / PROGRAM
