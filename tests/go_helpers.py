"""Programs in Go that tests use, each built once from a module that pins it and all that it is made of."""

import os
import shutil
import subprocess
from pathlib import Path

from innkeeper import paths, programs, progress
from innkeeper.guest.store import JSON, Store, hash_tree

SETTINGS = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -modcacherw"}


def build(name: str, source: Path, *packages: str, toolchain: str = "local", data: str = "", tests: bool = False, tags: str = "") -> Path:
    """Return the folder of step `name` with the programs of `packages`, out of the store if they are there.

    `toolchain` "auto" lets Go 1.21 and later fetch the release that the module asks for. `data` is "MODULE GLOB": files of that module
    which are to be copied beside the programs. With `tests` the program is a package's tests, `NAME.test`. `tags` are build
    constraints, separated by spaces. Modules and objects are kept in the project's cache.
    """
    settings = {**SETTINGS, "GOTOOLCHAIN": toolchain}
    verb = (*(("test", "-c") if tests else ("build",)), *((f"-tags={tags}",) if tags else ()))

    def make(out: Path) -> None:
        with progress.step(f"building {name}"):
            _go(source, settings, *verb, "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", f"{out}/", *packages)
            if data:
                module, pattern = data.split()
                folder = _go(source, settings, "list", "-m", "-f", "{{.Dir}}", module)
                for path in Path(folder.strip()).glob(pattern):
                    shutil.copyfile(path, out / path.name)  # not its mode: modules are read-only

    inputs: dict[str, JSON] = {"source": hash_tree(source), "settings": dict(settings), "data": data, "format": 2}
    if tags:
        inputs["tags"] = tags
    return Store(paths.store_root()).step(name, inputs, make)


def _go(source: Path, settings: dict[str, str], *words: str) -> str:
    """Run Go in `source`; return what it prints."""
    root = paths.cache_root() / "go"
    places = {"GOPATH": str(root), "GOMODCACHE": str(root / "mod"), "GOCACHE": str(root / "build")}
    done = subprocess.run(
        [programs.require("go"), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        cwd=source,
        env={**os.environ, **settings, **places},
        check=True,
    )
    return done.stdout
