"""Programs in Go that tests use, each built once from a module that pins it and all that it is made of."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from innkeeper import paths, programs, progress
from innkeeper.guest.store import JSON, Store, hash_tree

SETTINGS = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -modcacherw"}

Variables: TypeAlias = Mapping[str, str]
"""PACKAGE.NAME of a string variable in Go -> its value."""


def build(
    name: str,
    source: Path,
    *packages: str,
    toolchain: str = "local",
    data: str = "",
    tests: bool = False,
    tags: str = "",
    variables: Variables | None = None,
    background: bool = False,
) -> Path:
    """Return the folder of step `name` with the programs of `packages`, out of the store if they are there.

    `toolchain` "auto" lets Go 1.21 and later fetch the release that the module asks for. `data` is "MODULE GLOB": files of that module
    which are to be copied beside the programs. With `tests` the program is a package's tests, `NAME.test`. `tags` are build
    constraints, separated by spaces. The linker sets `variables`. What takes minutes is built in the `background`: at a low priority, with
    two compilers at most. Modules and objects are kept in the project's cache.
    """
    settings = {**SETTINGS, "GOTOOLCHAIN": toolchain}
    linked = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in (variables or {}).items())])
    before = ("nice", "-n", "15") if background else ()
    parallel = ("-p=2",) if background else ()
    verb = (*(("test", "-c") if tests else ("build",)), *((f"-tags={tags}",) if tags else ()))

    def make(out: Path) -> None:
        with progress.step(f"building {name}"):
            words = (*verb, *parallel, "-trimpath", "-buildvcs=false", f"-ldflags={linked}", "-o", f"{out}/", *packages)
            _go(source, settings, *words, before=before)
            if data:
                module, pattern = data.split()
                folder = _go(source, settings, "list", "-m", "-f", "{{.Dir}}", module)
                for path in Path(folder.strip()).glob(pattern):
                    shutil.copyfile(path, out / path.name)  # not its mode: modules are read-only

    return Store(paths.store_root()).step(name, _inputs(source, settings, data, tags, variables), make)


def is_built(name: str, source: Path, *, variables: Variables | None = None) -> bool:
    """Return whether the store has what `build` would return, for Go that is on this host."""
    return Store(paths.store_root()).has(name, _inputs(source, {**SETTINGS, "GOTOOLCHAIN": "local"}, "", "", variables))


def _inputs(source: Path, settings: dict[str, str], data: str, tags: str, variables: Variables | None) -> dict[str, JSON]:
    """Return all that decides what is built."""
    inputs: dict[str, JSON] = {"source": hash_tree(source), "settings": dict(settings), "data": data, "format": 2}
    if tags:
        inputs["tags"] = tags
    if variables:
        inputs["variables"] = dict(variables)
    return inputs


def _go(source: Path, settings: dict[str, str], *words: str, before: tuple[str, ...] = ()) -> str:
    """Run Go in `source`, by the command `before` if there is one; return what it prints."""
    root = paths.cache_root() / "go"
    places = {"GOPATH": str(root), "GOMODCACHE": str(root / "mod"), "GOCACHE": str(root / "build")}
    done = subprocess.run(
        [*before, programs.require("go"), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        cwd=source,
        env={**os.environ, **settings, **places},
        check=True,
    )
    return done.stdout
