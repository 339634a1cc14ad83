"""The guest's kernel: Debian's source with our fragments, built in the builder container.

    kernel = build_kernel(store, builder)       # <store>/kernel-ID/{vmlinux,bzImage,config}

The configuration starts from `allnoconfig`: a symbol that no fragment sets is off unless another
symbol selects it. The same source, fragments and compiler give the same bytes, because the source
is at one fixed path inside the container, and time, user and host are fixed.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from innkeeper import paths, progress
from innkeeper.errors import InnkeeperError
from innkeeper.guest import kconfig
from innkeeper.guest.builder import SOURCE_DATE_EPOCH, Builder
from innkeeper.guest.store import JSON, Store

BuilderFactory: TypeAlias = Callable[[Sequence[str]], Builder]

VERSION = "6.12"
"""The kernel series of Debian trixie, from its package `linux-source-6.12`."""

CCACHE_SIZE = "2G"
CCACHE_FOLDER = ".ccache-kernel"
"""The compiler cache, in the store's root.

It makes a build faster but never changes the result, so it is not an input of the step.
"""

_TOOLS = ["gcc", "libc6-dev", "make", "ccache", "bc", "bison", "flex", "libelf-dev", "perl", "python3-minimal"]
_PACKERS = ["cpio", "lz4", "xz-utils", "zstd"]

_CONFIGURE = """
set -eu
mkdir -p /build
tar -C /build -xJf "/usr/src/linux-source-$VERSION.tar.xz" --strip-components=1
cd /build
cp /out/fragments .fragments
make ARCH="$KERNEL_ARCH" KCONFIG_ALLCONFIG=.fragments allnoconfig
make ARCH="$KERNEL_ARCH" olddefconfig
cp .config /out/config
"""

_COMPILE = """
set -eu
cd /build
ccache --max-size="$CCACHE_MAXSIZE" >/dev/null
nice make ARCH="$KERNEL_ARCH" -j"$JOBS" vmlinux "$(basename "$KERNEL_IMAGE")"
strip --strip-all -o /out/vmlinux vmlinux
cp "$KERNEL_IMAGE" /out/
ccache --show-stats
"""


@dataclass(frozen=True)
class Target:
    """Kbuild's name for an architecture, and the path of the image that a boot loader starts."""

    arch: str
    image: str


TARGETS = {"x86_64": Target("x86_64", "arch/x86/boot/bzImage")}


def build_kernel(
    store: Store, builder_factory: BuilderFactory, version: str = VERSION, *, architecture: str = "x86_64", fragments: Path | None = None
) -> Path:
    """Build kernel `version` unless the store has it, and return the step's folder.

    It contains `vmlinux` (ELF, PVH, stripped), `bzImage` and `config`. `fragments` is the folder of
    configuration fragments, by default `kernel-config` of the source tree. Raises InnkeeperError if
    fragments are malformed or disagree, if a symbol does not survive, or if the compilation fails
    (with the path of its log).
    """
    target = TARGETS.get(architecture)
    if target is None:
        raise InnkeeperError(f"no kernel for architecture {architecture}", hint=f"known: {', '.join(TARGETS)}")
    settings = kconfig.read_fragments(fragments or paths.project_root() / "kernel-config", architecture)
    source = f"linux-source-{version}"
    builder = builder_factory([*_TOOLS, *_PACKERS, source])
    inputs: dict[str, JSON] = {
        "architecture": architecture,
        "builder": builder.id,
        "environment": dict(_environment(version, target)),
        "fragments": kconfig.as_config(settings),
        "recipe": [_CONFIGURE, _COMPILE],
        "source": f"{source} {builder.version_of(source)}",
    }

    def make(out: Path) -> None:
        with progress.step(f"building kernel {builder.version_of(source)} (10 minutes on 2 cores, less with a warm compiler cache)"):
            _make(store, builder, version, target, settings, out)

    return store.step("kernel", inputs, make)


def _make(store: Store, builder: Builder, version: str, target: Target, settings: dict[str, kconfig.Setting], out: Path) -> None:
    log = store.log_of(out)
    log.unlink(missing_ok=True)
    ccache = store.root / CCACHE_FOLDER
    ccache.mkdir(exist_ok=True)
    mounts = {out: "/out", ccache: "/ccache"}
    environment = _environment(version, target)
    (out / "fragments").write_text(kconfig.as_config(settings))
    with builder:
        builder.run(["sh", "-c", _CONFIGURE], mounts=mounts, env=environment, log=log)
        kconfig.check(settings, kconfig.parse_config((out / "config").read_text()))
        jobs = {"JOBS": str(len(os.sched_getaffinity(0)))}
        builder.run(["sh", "-c", _COMPILE], mounts=mounts, env=environment | jobs, log=log)
    (out / "fragments").unlink()
    # The shim may run as another user and must be able to read the bzImage.
    for name in ("vmlinux", Path(target.image).name, "config"):
        (out / name).chmod(0o644)


def _environment(version: str, target: Target) -> dict[str, str]:
    """Return the environment of both scripts.

    Everything that would record where, when and by whom the kernel was built has a fixed value.
    """
    return {
        "VERSION": version,
        "KERNEL_ARCH": target.arch,
        "KERNEL_IMAGE": target.image,
        "KBUILD_BUILD_TIMESTAMP": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(SOURCE_DATE_EPOCH)),
        "KBUILD_BUILD_USER": "innkeeper",
        "KBUILD_BUILD_HOST": "builder",
        "KBUILD_BUILD_VERSION": "1",
        "PATH": "/usr/lib/ccache:/usr/sbin:/usr/bin:/sbin:/bin",
        "CCACHE_DIR": "/ccache",
        "CCACHE_MAXSIZE": CCACHE_SIZE,
        "CCACHE_COMPILERCHECK": "content",
        "HOME": "/root",
    }
