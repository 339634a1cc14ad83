"""The guest's kernel: Debian's source with our fragments, built in the builder container.

    source = SOURCES["linux-source-6.12"]
    kernel = build_kernel(source, store, fragments)   # <store>/kernel-ID/{vmlinux,bzImage,config}

The configuration starts from `allnoconfig`: a symbol that no fragment sets is off unless another
symbol selects it. The same source, fragments and compiler give the same bytes, because the source
is at one fixed path inside the container, and time, user and host are fixed.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from innkeeper import progress
from innkeeper.guest import kconfig
from innkeeper.guest.builder import OLDER_SUITE, SOURCE_DATE_EPOCH, SUITE, Builder
from innkeeper.guest.store import JSON, Store


@dataclass(frozen=True)
class Target:
    """An architecture that a kernel is compiled for on x86-64.

    * `name`: ours, and the folder of its fragments
    * `kbuild`: the kernel's own name for it
    * `image`: path in the kernel's tree of what a boot loader starts
    * `tools`, `cross`: packages with Debian's cross compiler, and the prefix of its programs
    * `machine_type`: the only machine of QEMU that it boots on, or None
    * `boots_elf`: QEMU starts its ELF file, in place of `image`
    """

    name: str
    kbuild: str
    image: str
    tools: tuple[str, ...] = ()
    cross: str = ""
    machine_type: str | None = None
    boots_elf: bool = True


X86_64 = Target("x86_64", "x86_64", "arch/x86/boot/bzImage")
TARGETS = {
    target.name: target
    for target in (
        X86_64,
        Target(
            "aarch64",
            "arm64",
            "arch/arm64/boot/Image",
            ("gcc-aarch64-linux-gnu",),
            cross="aarch64-linux-gnu-",
            machine_type="virt",
            boots_elf=False,
        ),
    )
}


@dataclass(frozen=True)
class Source:
    """A kernel source of Debian: the version of the series, and the Debian release that has it.

    That release's compiler compiles it, for `target`.
    """

    version: str
    suite: str
    target: Target = X86_64

    @property
    def package(self) -> str:
        return f"linux-source-{self.version}"

    @property
    def series(self) -> kconfig.Version:
        return kconfig.parse_version(self.version)

    def builder(self, store: Store) -> Builder:
        """Return the builder that compiles this source."""
        return Builder([*_TOOLS, *self.target.tools, self.package], store, self.suite)

    @property
    def files(self) -> tuple[str, str, str]:
        """Return the names of the results: the ELF kernel, its bootable form, its configuration."""
        return "vmlinux", Path(self.target.image).name, "config"


VERSION = "6.12"
"""The kernel series of Debian trixie, which is built unless another one is asked for."""
SOURCES = {source.package: source for source in (Source(VERSION, SUITE), Source("6.1", OLDER_SUITE))}
"""The kernel sources by the names of their packages. The first one is the default."""

CROSS_SOURCES = {name: Source(VERSION, SUITE, target) for name, target in TARGETS.items() if target.cross}
"""The kernel source of each architecture that a cross compiler compiles for."""

DURATION = "less than 10 minutes"
"""How long a compilation takes on two cores whose compiler cache is empty."""

CCACHE_SIZE = "2G"
CCACHE_FOLDER = ".ccache-kernel"
"""The compiler cache, in the store's root.

It makes a build faster but never changes the result, so it is not an input of the step.
"""

_TOOLS = [
    *("gcc", "libc6-dev", "make", "ccache", "bc", "bison", "flex", "libelf-dev", "perl", "python3-minimal"),
    *("cpio", "lz4", "xz-utils", "zstd"),
]
"""Packages of the builder that compiles the kernel, beside its source."""

_CONFIGURE = """
set -eu
mkdir -p /build
tar -C /build -xJf "/usr/src/linux-source-$VERSION.tar.xz" --strip-components=1
cd /build
cp /out/fragments .fragments
make ARCH="$KERNEL_ARCH" KCONFIG_ALLCONFIG=.fragments allnoconfig
cp .config /out/config
"""

_COMPILE = """
set -eu
cd /build
PATH=/usr/lib/ccache:$PATH
ccache --max-size="$CCACHE_MAXSIZE" >/dev/null
nice make ARCH="$KERNEL_ARCH" -j"$JOBS" vmlinux "$(basename "$KERNEL_IMAGE")"
strip --strip-all -o /out/vmlinux vmlinux
cp "$KERNEL_IMAGE" /out/
ccache --show-stats
"""


def build_kernel(source: Source, store: Store, fragments: Path, extra: Sequence[Path] = ()) -> Path:
    """Build the kernel unless the store has it, and return the step's folder.

    It contains `vmlinux` (ELF, PVH, stripped), `bzImage` and `config`. `fragments` is the folder of
    configuration fragments, `extra` are further fragments. Raises InnkeeperError if these are
    malformed or disagree, if a symbol does not survive, or if the compilation fails (with the path
    of its log).
    """
    return _step(source, store, fragments, extra, compile_it=True)


def configure_kernel(source: Source, store: Store, fragments: Path, extra: Sequence[Path] = ()) -> Path:
    """Make the kernel's configuration as `build_kernel` does, without compiling anything.

    Return the step's folder, which contains `config`. Raises InnkeeperError.
    """
    return _step(source, store, fragments, extra, compile_it=False)


def _step(source: Source, store: Store, fragments: Path, extra: Sequence[Path], *, compile_it: bool) -> Path:
    builder = source.builder(store)
    settings = kconfig.read_fragments(fragments, source.target.name, source.series, extra)
    version = builder.version_of(source.package)
    inputs: dict[str, JSON] = {
        "architecture": source.target.name,
        "builder": builder.id,
        "environment": dict(_environment(source)),
        "fragments": kconfig.as_config(settings),
        "recipe": [_CONFIGURE, _compile(source)] if compile_it else [_CONFIGURE],
        "source": f"{source.package} {version}",
    }
    what = f"kernel {version}{f' for {source.target.name}' if source.target.cross else ''}"
    title = f"building {what} ({DURATION} on 2 cores)" if compile_it else f"configuring {what}"

    def make(out: Path) -> None:
        with progress.step(title):
            _make(builder, settings, source, out, compile_it=compile_it)

    return store.step("kernel" if compile_it else "kernel-config", inputs, make)


def _compile(source: Source) -> str:
    """Return the script that compiles the kernel, with the programs of the target's tools."""
    return _COMPILE.replace("\nstrip ", f"\n{source.target.cross}strip ")


def _make(builder: Builder, settings: dict[str, kconfig.Setting], source: Source, out: Path, *, compile_it: bool) -> None:
    environment = _environment(source)
    log = builder.store.log_of(out)
    log.unlink(missing_ok=True)
    ccache = builder.store.root / CCACHE_FOLDER
    ccache.mkdir(exist_ok=True)
    mounts = {out: "/out", ccache: "/ccache"}
    (out / "fragments").write_text(kconfig.as_config(settings))
    with builder:
        builder.run(["sh", "-c", _CONFIGURE], mounts=mounts, env=environment, log=log)
        kconfig.check(settings, kconfig.parse_config((out / "config").read_text()))
        if compile_it:
            jobs = {"JOBS": str(len(os.sched_getaffinity(0)))}
            builder.run(["sh", "-c", _compile(source)], mounts=mounts, env=environment | jobs, log=log)
    (out / "fragments").unlink()
    # The shim may run as another user and must be able to read the bzImage.
    for path in out.iterdir():
        path.chmod(0o644)


def _environment(source: Source) -> dict[str, str]:
    """Return the environment of both scripts.

    Everything that would record where, when and by whom the kernel was built has a fixed value.
    """
    return {
        "VERSION": source.version,
        "KERNEL_ARCH": source.target.kbuild,
        "KERNEL_IMAGE": source.target.image,
        **({"CROSS_COMPILE": source.target.cross} if source.target.cross else {}),
        "KBUILD_BUILD_TIMESTAMP": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(SOURCE_DATE_EPOCH)),
        "KBUILD_BUILD_USER": "innkeeper",
        "KBUILD_BUILD_HOST": "builder",
        "KBUILD_BUILD_VERSION": "1",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "CCACHE_DIR": "/ccache",
        "CCACHE_MAXSIZE": CCACHE_SIZE,
        "CCACHE_COMPILERCHECK": "content",
        # Headers are found by the compiler's own list of dependencies. Otherwise ccache runs the
        # preprocessor first, which is half again the time of a compilation that is not cached.
        "CCACHE_DEPEND": "1",
        "HOME": "/root",
    }
