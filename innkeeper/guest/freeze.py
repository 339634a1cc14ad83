"""Freeze the agent and its gRPC gateway into programs.

PyInstaller (onedir mode) runs inside the builder with Debian's python3.13. There are three steps,
because they change at different rates: one for the locked packages, and one freeze per program.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from innkeeper import progress
from innkeeper.files import hash_file
from innkeeper.guest import wheels
from innkeeper.guest.builder import Builder
from innkeeper.guest.store import JSON, Store, hash_tree

PACKAGES = [
    "binutils",
    "busybox-static",
    "e2fsprogs",
    "erofs-utils",
    "gcc",
    "iptables",
    "libc6-dev",
    "libcap-dev",
    "libseccomp2",
    "patchelf",
    "python3",
    "python3-dev",
    "python3-pip",
    "python3-setuptools",
    "python3-wheel",
    "tini",
]
"""Packages of the builder that freezes the agent and assembles its root file system.

The libraries that are copied into the root are those of this Debian release.
"""

ENVIRONMENT = {
    "PYTHONHASHSEED": "1",
    "PYTHONPATH": "/site",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYINSTALLER_CONFIG_DIR": "/tmp/pyinstaller",
    "INNKEEPER_SOURCE": "/src",
}
"""PyInstaller's environment in the builder."""

BUILDER_SCRIPTS = Path(__file__).parent / "builder_scripts"
"""Scripts that run inside the builder."""

_INSTALL = """
set -eu
# pip compiles in a folder with a random name, which debug information and so the build id would tell.
export CFLAGS=-g0 LDFLAGS=-Wl,--build-id=none
pip install --quiet --require-hashes --no-deps --no-build-isolation --no-compile --no-cache-dir --root-user-action ignore \\
    --break-system-packages --target /out/site -r /requirements.lock
for module in $(cd /inside/overrides; find . -name '*.py' | sort); do
    test -e "/out/site/$module"  # What is replaced must be what is there.
    cp "/inside/overrides/$module" "/out/site/$module"
done
upb=/out/site/google/_upb/_message.abi3.so
strip --strip-unneeded /out/site/*.so "$upb"
# upb is C but linked with the C++ library: 2.7 MB that need not be loaded. Any use of it would show here.
if nm -D --undefined-only "$upb" | grep -E ' _Z|GLIBCXX|CXXABI|GCC_'; then exit 1; fi
patchelf --remove-needed libstdc++.so.6 "$upb"
"""

_FREEZE = """
set -eu
mkdir /tmp/freeze
cd /tmp/freeze
python3 -m PyInstaller --log-level WARN --noconfirm --distpath dist --workpath work "/inside/$1.spec"
cp "work/$1/warn-$1.txt" /out/missing-modules.txt
cp -R "dist/$1" "/out/$1"
"""


@dataclass(frozen=True)
class Program:
    """A program to freeze.

    `sources` are patterns of files in the source tree. Files below the paths in `without` are left
    out.
    """

    name: str
    sources: tuple[str, ...]
    without: tuple[str, ...] = ()

    def files(self, project: Path) -> dict[str, JSON]:
        """Return the program's files, as path -> what decides the build about the file.

        Files that are shared with the host are always included.
        """
        found = hash_tree(project, [*self.sources, "innkeeper/__init__.py", "innkeeper/wire/**/*.py"])
        return {name: content for name, content in found.items() if not name.startswith(self.without)}


AGENT = Program("agent", ("agent/**/*.py",), without=("agent/gateway/", "agent/oci/"))
"""The agent, without its command for hosts and without the modules that PID 1 never imports."""
GATEWAY = Program("gateway", ("agent/__init__.py", "agent/gateway/**/*.py", "agent/linux/**/*.py", "agent/errors.py"))


def freeze(store: Store, builder: Builder, project: Path, program: Program) -> Path:
    """Freeze a program of `project` and return the step's folder.

    It contains a folder of the program's name (program and `_internal`) and `missing-modules.txt`.
    """
    site = install_packages(builder, project)
    inputs: dict[str, JSON] = {
        "builder": builder.id,
        "site": site.name,
        "source": program.files(project),
        "spec": hash_file(BUILDER_SCRIPTS / f"{program.name}.spec"),
        "standard": hash_tree(BUILDER_SCRIPTS / "stdlib_shims", ["**/*.py"]),
        "script": _FREEZE,
    }

    def make(out: Path) -> None:
        with progress.step(f"freezing the {program.name}"), builder:
            with source_copied(project, program.files(project), out) as source:
                mounts = {source: "/src:ro", site / "site": "/site:ro", BUILDER_SCRIPTS: "/inside:ro", out: "/out"}
                builder.run(["sh", "-c", _FREEZE, "sh", program.name], mounts=mounts, env=ENVIRONMENT, log=store.log_of(out))

    return store.step(program.name, inputs, make)


def install_packages(builder: Builder, project: Path) -> Path:
    """Install the locked Python packages and return the step's folder, which contains `site`."""
    lock = project / "agent" / "requirements.lock"
    overrides = hash_tree(BUILDER_SCRIPTS / "overrides", ["**/*.py"])
    inputs: dict[str, JSON] = {"builder": builder.id, "script": _INSTALL, "lock": hash_file(lock), "replaced": overrides}

    def make(out: Path) -> None:
        with progress.step("installing the agent's locked packages"), builder:
            log = builder.store.log_of(out)
            mounts = {**wheels.fetch(builder, lock, log), lock: "/requirements.lock:ro", BUILDER_SCRIPTS: "/inside:ro", out: "/out"}
            builder.run(["sh", "-c", _INSTALL], mounts=mounts, env=wheels.OFFLINE, log=log)

    return builder.store.step("python-packages", inputs, make)


@contextmanager
def source_copied(project: Path, names: Iterable[str], out: Path) -> Iterator[Path]:
    """Context manager: copy the files whose hashes are inputs of the freeze, and no others.

    A file that is not an input could otherwise change the result without changing the step's id.
    Yields the copy's folder, which is in the step's folder `out` meanwhile.
    """
    target = out / "source"
    for name in names:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(project / name, path)
        os.chmod(path, 0o644)
    yield target
    shutil.rmtree(target)
