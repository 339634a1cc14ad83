"""The builder: a Debian trixie container in which everything else is compiled.

    with Builder(["gcc", "make"]) as builder:
        builder.run(["make"], mounts={source: "/src"}, log=log)

mmdebstrap makes the container, without any registry. Which packages are installed is decided
before: by the pins of the lock file, or by apt with the mirror's index of that day. They are kept
in the store (`archives`). A builder image is a step of the store like any other. Its result is the
list of packages that it contains (`packages.json`), and the hash of that list is the builder's
identity in later steps. The image itself is in buildah's storage, under the same name.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType

from innkeeper import paths, progress
from innkeeper.errors import InnkeeperError
from innkeeper.files import hash_file
from innkeeper.guest import debian, foreign, proxy_and_ca
from innkeeper.guest.archives import fetch, repository
from innkeeper.guest.buildah import Buildah
from innkeeper.guest.pins import NAME, Package, Request, digest
from innkeeper.guest.resolve import BASE, Resolver
from innkeeper.guest.store import JSON, Store, unknown
from innkeeper.guest.working_container import remove_abandoned, working_container

SUITE = "trixie"
OLDER_SUITE = "bookworm"
"""The Debian release for programs that run on the host.

A program linked with this release's C library also runs with any later one.
"""
SOURCE_DATE_EPOCH = 1767225600
"""2026-01-01T00:00:00Z: the timestamp of everything that is built here."""

_PACKAGES = "packages.json"
_PACKAGES_INSIDE = "/run/innkeeper/packages"
"""Where the builder has the packages while they are installed."""


class Builder:
    """A working container of a builder image, with Debian's `packages` installed.

    The container exists inside the `with` block. The same object can be entered again. `suite` is a
    Debian release. With `on`, the image is that of the builder with these packages, to which the
    others are added: what both have is of the same version. `architecture` is another one than this
    machine's, whose programs are emulated, or empty.
    """

    def __init__(
        self, packages: Sequence[str], store: Store | None = None, suite: str = SUITE, *, on: Sequence[str] = (), architecture: str = ""
    ) -> None:
        self.packages = sorted(set(packages))
        self.on = sorted(set(on))
        self.suite = suite
        self.architecture = architecture
        self.store = store or Store(paths.store_root())
        self.buildah = Buildah((self.store.root.parent / "buildah").resolve())
        self._container: str | None = None
        self._working = ExitStack()

    @property
    def id(self) -> str:
        """Return the builder's identity for the inputs of steps: the hash of its list of packages.

        With pins it is known. Otherwise the image is built first if it does not exist yet.
        """
        if self.store.only_plans:
            if self.packages:
                self._below().id  # noqa: B018
            self._image_step()  # to be listed before the steps that use it
        if known := self.store.pins.builder_ids.get(self.request.key):
            return known
        if (listed := self._known_list()) is not None:
            known = self.store.pins.builder_ids[self.request.key] = hashlib.sha256(_as_json(listed).encode()).hexdigest()
            return known
        image = self._image_step()
        return hash_file(image / _PACKAGES) if self.store.made(image) else unknown(image)

    def package_list(self) -> list[dict[str, str]]:
        """Return all installed packages.

        Each is a dictionary of `name`, `version`, `architecture` and `sha256` of the archive.
        """
        if (known := self._known_list()) is not None:
            return known
        image = self._image_step()
        packages: list[dict[str, str]] = json.loads((image / _PACKAGES).read_text()) if self.store.made(image) else []
        return packages

    def version_of(self, package: str) -> str:
        """Return the version of an installed package.

        Raises InnkeeperError if it is not installed.
        """
        for entry in self.package_list():
            if entry["name"] == package:
                return entry["version"]
        if self._known_list() is None and not self.store.made(self._image_step()):
            return unknown(self._image_step())
        raise InnkeeperError(f"the builder has no package {package}")

    def run(
        self,
        argv: Sequence[str],
        *,
        mounts: Mapping[Path, str] | None = None,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        network: bool = False,
    ) -> str:
        """Run a program in the builder and return its output, or append the output to `log`.

        `mounts` maps host paths to paths in the builder. With `network`, the program gets this
        host's CA certificates, proxies and package indexes. Raises BuildahError.
        """
        if self._container is None:
            raise RuntimeError("a Builder runs programs inside its `with` only")
        settings = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH)} | dict(env or {})
        binds = dict(mounts or {})
        if network:
            settings |= proxy_and_ca.environment()
            binds |= proxy_and_ca.mounts()
        return self.buildah.run(self._container, argv, mounts=binds, env=settings, log=log, emulator=self._emulator)

    @cached_property
    def _emulator(self) -> foreign.Emulator | None:
        """What runs the programs, or None if they run as any others. Raises InnkeeperError."""
        return foreign.find(self.architecture) if self.architecture else None

    def step(
        self,
        name: str,
        title: str,
        script: str,
        inputs: Mapping[str, JSON],
        mounts: Mapping[Path, str],
        *,
        network: bool = False,
        finish: Callable[[Path], object] | None = None,
    ) -> Path:
        """Return the folder of a step that runs a shell script, which writes to /out.

        The builder, the script and `inputs` decide its id. `title` is shown while it runs. `finish`
        is called with the folder after the script.
        """

        def make(out: Path) -> None:
            with progress.step(title), self:
                self.run(["sh", "-c", script], mounts={**mounts, out: "/out"}, log=self.store.log_of(out), network=network)
            if finish is not None:
                finish(out)

        return self.store.step(name, {"builder": self.id, "script": script, **inputs}, make)

    def __enter__(self) -> "Builder":
        image = self._image_step().name
        if not self.buildah.has_image(_image_name(image)):
            # The result is in the store, but buildah's storage was deleted since. Make the image
            # again.
            self.store.discard(self._image_step())
            image = self._image_step().name
        remove_abandoned(self.buildah)
        self._container = self._working.enter_context(working_container(self.buildah, _image_name(image)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._container = None
        self._working.close()

    def _image_step(self) -> Path:
        inputs: dict[str, JSON] = {"suite": self.suite, "packages": [*BASE]}
        if self.architecture:
            inputs["architecture"] = self.architecture
        base_pins = self.store.pins.of(Request(self.suite, architecture=self.architecture))
        if base_pins is not None:
            inputs["pins"] = digest(base_pins)
        if not self.packages:
            return self.store.step("builder-base", inputs, self._make_base)
        inputs = {"base": inputs, "packages": list(self.packages)}
        if (added := self.store.pins.of(self.request)) is not None:
            inputs["pins"] = digest(added)
        if self.on:
            inputs["on"] = self._below().id
        return self.store.step("builder", inputs, self._make_with_packages)

    @property
    def request(self) -> Request:
        """Return what the builder asks of Debian, beyond the builder below it."""
        return Request(self.suite, tuple(self.packages), tuple(self.on), architecture=self.architecture)

    def _below(self) -> "Builder":
        """Return the builder whose image this one adds packages to: the base has none."""
        return Builder(self.on, self.store, self.suite, architecture=self.architecture)

    def _known_list(self) -> list[dict[str, str]] | None:
        """Return the packages as the pins say, or None without pins for this builder."""
        added = self.store.pins.of(self.request)
        if added is None:
            return None
        below = self._below()._known_list() if self.packages else []
        return None if below is None else _with(below, added)

    def _make_base(self, out: Path) -> None:
        what = f"Debian {self.suite}{f' for {self.architecture}, emulated' if self.architecture else ''}"
        with progress.step(f"making the builder's base ({what})"):
            log = self.store.log_of(out)
            log.unlink(missing_ok=True)
            packages = packages_of(self.store, self.request)
            archive = out / "base.tar"
            archives = fetch(self.store, packages, log)
            include, architecture = ["ca-certificates"], self.architecture
            debian.mmdebstrap(archive, self.suite, include, SOURCE_DATE_EPOCH, log, packages=archives, architecture=architecture)
            with working_container(self.buildah, "scratch") as container:
                self.buildah.add(container, archive, "/")
                archive.unlink()
                self._finish(out, container, _with([], packages))

    def _make_with_packages(self, out: Path) -> None:
        with progress.step(f"making a builder with {' '.join(self.packages)}"), self._below() as below:
            log = self.store.log_of(out)
            log.unlink(missing_ok=True)
            status = "" if self.store.pins.of(self.request) is not None else below.run(["cat", "/var/lib/dpkg/status"])
            packages = packages_of(self.store, self.request, status)
            line = repository(out / "packages", fetch(self.store, packages, log), self.suite)
            (out / "sources.list").write_text(line.format(f"file:{_PACKAGES_INSIDE}") + "\n")
            options = ["-y", "-q", "--no-install-recommends", "-o", "APT::Sandbox::User=root", "-o", "Dpkg::Use-Pty=0"]
            binds = {out / "packages": f"{_PACKAGES_INSIDE}:ro", out / "sources.list": "/etc/apt/sources.list:ro"}
            script = 'apt-get update -q && apt-get install "$@"'
            names = [f"{one.name}={one.version}" for one in packages]
            environment = {"DEBIAN_FRONTEND": "noninteractive"}
            below.run(["sh", "-c", script, "install", *options, *names], env=environment, mounts=binds, log=log)
            below.run(["sh", "-c", "apt-get clean; rm -rf /var/lib/apt/lists/* /var/log/*.log /run/innkeeper"], log=log)
            shutil.rmtree(out / "packages")
            (out / "sources.list").unlink()
            assert below._container is not None
            self._finish(out, below._container, _with(below.package_list(), packages))

    def _finish(self, out: Path, container: str, expected: list[dict[str, str]]) -> None:
        """Save the container as the builder's image, with the list of its packages.

        Raises InnkeeperError if it has others.
        """
        found = debian.installed(self.buildah.run(container, ["sh", "-c", debian.LIST_PACKAGES], emulator=self._emulator))
        wanted = {(entry["name"], entry["version"], entry["architecture"]) for entry in expected}
        if found != wanted:
            differing = ", ".join(sorted({" ".join(one) for one in found ^ wanted}))
            raise InnkeeperError(f"the builder does not have the packages that were asked for, but others: {differing}")
        self.buildah.commit(container, _image_name(out.name))
        (out / _PACKAGES).write_text(_as_json(expected))


def packages_of(store: Store, request: Request, status: str = "") -> tuple[Package, ...]:
    """Return the packages to install: the pinned ones, else those that the mirror has now.

    `status` is dpkg's, below.
    """
    pinned = store.pins.of(request)
    if pinned is not None:
        return pinned
    what = " ".join(request.packages) or f"the base of Debian {request.suite}"
    progress.note(f"{what}: not in {store.pins.file or NAME}, so taken as the mirror has it today")
    with Resolver(request.suite, request.architecture) as resolver:
        return tuple(resolver.resolve(request, status))


def _with(below: list[dict[str, str]], added: Sequence[Package]) -> list[dict[str, str]]:
    """Return a list of packages with others added.

    A newer version takes the place of an older one.
    """
    packages = {entry["name"]: entry for entry in below} | {one.name: one.listed() for one in added}
    return [packages[name] for name in sorted(packages, key=lambda name: f"{name}|")]  # the order of dpkg-query's sorted lines


def _as_json(packages: list[dict[str, str]]) -> str:
    return json.dumps(packages, indent=1, sort_keys=True) + "\n"


def _image_name(step: str) -> str:
    return f"localhost/innkeeper-{step}:latest"
