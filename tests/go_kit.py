"""Programs in Go that tests use, each built once from a module that pins it and all that it is made of."""

import os
import subprocess
from pathlib import Path

from innkeeper import paths, programs
from innkeeper.guest.store import Store, hash_tree

SETTINGS = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -modcacherw"}


def build(name: str, source: Path, *packages: str, toolchain: str = "local") -> Path:
    """The folder of step `name` with the programs of `packages`, out of the store if they are there.

    `toolchain` "auto" lets Go 1.21 and later fetch the release that the module asks for. Modules and objects are kept in the
    project's cache.
    """
    go, cache_root = programs.require("go"), paths.cache_root() / "go"
    settings = {**SETTINGS, "GOTOOLCHAIN": toolchain}
    places = {"GOPATH": str(cache_root), "GOMODCACHE": str(cache_root / "mod"), "GOCACHE": str(cache_root / "build")}

    def make(out: Path) -> None:
        subprocess.run(
            [go, "build", "-trimpath", "-buildvcs=false", "-o", f"{out}/", *packages],
            stdin=subprocess.DEVNULL,
            cwd=source,
            env={**os.environ, **settings, **places},
            check=True,
        )

    return Store(paths.store_root()).step(name, {"source": hash_tree(source), "settings": dict(settings)}, make)
