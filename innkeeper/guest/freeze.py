"""The agent and its gRPC gateway as frozen programs: PyInstaller's onedir, made inside the builder with Debian's python3.13.

Three steps, because they change at different paces: the locked packages, and a freeze for each program.
"""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from innkeeper import progress
from innkeeper.guest.builder import Builder
from innkeeper.guest.store import JSON, Store, hash_file, hash_tree

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
"""Of the builder that freezes the agent and assembles its root: libraries that the agent gets are this Debian's."""

INSIDE = Path(__file__).parent / "builder_scripts"
"""What runs inside the builder."""

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
    """Something to freeze. `sources` are patterns of the tree's files that go in, without those below `without`."""

    name: str
    sources: tuple[str, ...]
    without: tuple[str, ...] = ()

    def files(self, project: Path) -> dict[str, JSON]:
        """The files, path -> what decides the build about it; what is shared with the host is always among them."""
        found = hash_tree(project, [*self.sources, "innkeeper/__init__.py", "innkeeper/wire/**/*.py"])
        return {name: content for name, content in found.items() if not name.startswith(self.without)}


AGENT = Program("agent", ("agent/**/*.py",), without=("agent/gateway/", "agent/oci/"))
"""Without its command for hosts, and without what PID 1 never imports."""
GATEWAY = Program("gateway", ("agent/__init__.py", "agent/gateway/**/*.py", "agent/linux/**/*.py", "agent/errors.py"))


def freeze(store: Store, builder: Builder, project: Path, program: Program) -> Path:
    """The step that froze a program of `project`: a folder of its name (program and `_internal`) and `missing-modules.txt`."""
    site = install_packages(store, builder, project)
    inputs: dict[str, JSON] = {
        "builder": builder.id,
        "site": site.name,
        "source": program.files(project),
        "spec": hash_file(INSIDE / f"{program.name}.spec"),
        "standard": hash_tree(INSIDE / "stdlib_shims", ["**/*.py"]),
        "script": _FREEZE,
    }

    def make(out: Path) -> None:
        with progress.step(f"freezing the {program.name}"), builder:
            source = out / "source"
            copy_source(project, source, program.files(project))
            mounts = {source: "/src:ro", site / "site": "/site:ro", INSIDE: "/inside:ro", out: "/out"}
            env = {
                "PYTHONHASHSEED": "1",
                "PYTHONPATH": "/site",
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYINSTALLER_CONFIG_DIR": "/tmp/pyinstaller",
                "INNKEEPER_SOURCE": "/src",
            }
            builder.run(["sh", "-c", _FREEZE, "sh", program.name], mounts=mounts, env=env, log=store.log_of(out))
            shutil.rmtree(source)

    return store.step(program.name, inputs, make)


def install_packages(store: Store, builder: Builder, project: Path) -> Path:
    """The step that installed the locked Python packages: folder `site`."""
    lock = project / "agent" / "requirements.lock"
    replaced = hash_tree(INSIDE / "overrides", ["**/*.py"])
    inputs: dict[str, JSON] = {"builder": builder.id, "lock": hash_file(lock), "script": _INSTALL, "replaced": replaced}

    def make(out: Path) -> None:
        with progress.step("installing the agent's locked packages"), builder:
            mounts = {lock: "/requirements.lock:ro", INSIDE: "/inside:ro", out: "/out"}
            builder.run(["sh", "-c", _INSTALL], mounts=mounts, log=store.log_of(out), network=True)

    return store.step("python-packages", inputs, make)


def copy_source(project: Path, target: Path, names: Iterable[str]) -> None:
    """Give the freeze exactly the files whose hashes are its inputs."""
    for name in names:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(project / name, path)
        os.chmod(path, 0o644)
