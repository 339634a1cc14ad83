"""The builder: a Debian trixie container in which everything else is compiled.

    with Builder(["gcc", "make"]) as builder:
        builder.run(["make"], mounts={source: "/src"}, log=log)

mmdebstrap makes the container, without any registry. A builder image is a step of the store like
any other. Its result is the list of packages that it contains (`packages.json`), and the hash of
that list is the builder's identity in later steps. The image itself is in buildah's storage, under
the same name.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from innkeeper import files, paths, progress
from innkeeper.errors import InnkeeperError
from innkeeper.files import hash_file
from innkeeper.guest import debian, proxy_and_ca
from innkeeper.guest.buildah import Buildah
from innkeeper.guest.store import JSON, Store, unknown

SUITE = "trixie"
OLDER_SUITE = "bookworm"
"""The Debian release for programs that run on the host.

A program linked with this release's C library also runs with any later one.
"""
SOURCE_DATE_EPOCH = 1767225600
"""2026-01-01T00:00:00Z: the timestamp of everything that is built here."""

_BASE_PACKAGES = ["ca-certificates"]
_PACKAGES = "packages.json"


class Builder:
    """A working container of a builder image, with Debian's `packages` installed.

    The container exists inside the `with` block. The same object can be entered again. `suite` is a
    Debian release. With `on`, the image is that of the builder with these packages, to which the
    others are added: what both have is of the same version.
    """

    def __init__(self, packages: Sequence[str], store: Store | None = None, suite: str = SUITE, *, on: Sequence[str] = ()) -> None:
        self.packages = sorted(set(packages))
        self.on = sorted(set(on))
        self.suite = suite
        self.store = store or Store(paths.store_root())
        self.buildah = Buildah((self.store.root.parent / "buildah").resolve())
        self._container: str | None = None
        self._working = ExitStack()

    @property
    def id(self) -> str:
        """Return the builder's identity for the inputs of steps: the hash of its list of packages.

        Builds the image first if it does not exist yet.
        """
        image = self._image_step()
        return hash_file(image / _PACKAGES) if self.store.made(image) else unknown(image)

    def package_list(self) -> list[dict[str, str]]:
        """Return all installed packages as dictionaries of `name`, `version` and `architecture`.

        `sha256` of the package's archive is included if apt's lists contain it.
        """
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
        if not self.store.made(self._image_step()):
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
        return self.buildah.run(self._container, argv, mounts=binds, env=settings, log=log)

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
        _remove_abandoned(self.buildah)
        self._container = self._working.enter_context(_working_container(self.buildah, _image_name(image)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._container = None
        self._working.close()

    def _image_step(self) -> Path:
        if not self.packages:
            return self.store.step("builder-base", _base_inputs(self.suite), self._make_base)
        inputs: dict[str, JSON] = {"base": _base_inputs(self.suite), "packages": list(self.packages)}
        if self.on:
            inputs["on"] = self._below().id
        return self.store.step("builder", inputs, self._make_with_packages)

    def _below(self) -> "Builder":
        """Return the builder whose image this one adds packages to."""
        return Builder(self.on, self.store, self.suite)

    def _make_base(self, out: Path) -> None:
        with progress.step(f"making the builder's base (Debian {self.suite})"):
            log = self.store.log_of(out)
            archive = out / "base.tar"
            debian.mmdebstrap(archive, self.suite, _BASE_PACKAGES, SOURCE_DATE_EPOCH, log)
            with _working_container(self.buildah, "scratch") as container:
                self.buildah.add(container, archive, "/")
                archive.unlink()
                listed = self.buildah.run(container, ["sh", "-c", debian.LIST_PACKAGES])
                self.buildah.commit(container, _image_name(out.name))
            (out / _PACKAGES).write_text(debian.package_list(listed))

    def _make_with_packages(self, out: Path) -> None:
        with progress.step(f"making a builder with {' '.join(self.packages)}"), self._below() as base:
            log = self.store.log_of(out)
            log.unlink(missing_ok=True)
            options = ["-y", "-q", "--no-install-recommends", "-o", "APT::Sandbox::User=root", "-o", "Dpkg::Use-Pty=0"]
            quiet = {"DEBIAN_FRONTEND": "noninteractive"}
            apt = out / "apt"
            apt.mkdir()
            binds = debian.sources_mounts(apt, self.suite)
            base.run(["apt-get", "update", "-q", *debian.apt_ca()], env=quiet, mounts=binds, log=log, network=True)
            base.run(["apt-get", "install", *options, *debian.apt_ca(), *self.packages], env=quiet, mounts=binds, log=log, network=True)
            listed = base.run(["sh", "-c", debian.LIST_PACKAGES])
            base.run(["sh", "-c", "apt-get clean; rm -rf /var/lib/apt/lists/* /var/log/*.log /run/innkeeper"], log=log)
            shutil.rmtree(apt)
            assert base._container is not None
            base.buildah.commit(base._container, _image_name(out.name))
            (out / _PACKAGES).write_text(debian.package_list(listed))


def _base_inputs(suite: str) -> dict[str, JSON]:
    """Return the inputs of the base step.

    The mirror is not an input: every mirror carries the same Debian. The list of packages would
    show a difference.
    """
    return {"suite": suite, "packages": list(_BASE_PACKAGES)}


def _image_name(step: str) -> str:
    return f"localhost/innkeeper-{step}:latest"


@contextmanager
def _working_container(buildah: Buildah, image: str) -> Iterator[str]:
    """Context manager: yield the name of a working container of `image`.

    It is locked, so that other builds see that it is in use.
    """
    name = f"innkeeper-{os.getpid()}-{os.urandom(4).hex()}"
    path = _lock_path(buildah, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(path):
        try:
            buildah.from_(image, name)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        try:
            yield name
        finally:
            buildah.rm(name)
            path.unlink(missing_ok=True)


def _remove_abandoned(buildah: Buildah) -> None:
    """Remove working containers whose owner was killed.

    The kernel drops a flock(2) lock when its holder dies, so a lock that can be taken means an
    abandoned container.
    """
    folder = _lock_path(buildah, "").parent
    for path in folder.glob("innkeeper-*") if folder.is_dir() else ():
        try:
            lock = files.lock(path, flags=os.O_RDWR, wait=False)
        except (FileNotFoundError, BlockingIOError):
            continue
        try:
            if path.name in buildah.containers():
                buildah.rm(path.name)
            path.unlink(missing_ok=True)
        finally:
            os.close(lock)


def _lock_path(buildah: Buildah, name: str) -> Path:
    return buildah.folder / "locks" / name
