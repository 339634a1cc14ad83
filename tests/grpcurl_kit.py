"""The real grpcurl, built once from the module that `tests/grpcurl` pins: a gRPC client in another language."""

import os
import subprocess
from functools import cache
from pathlib import Path

from innkeeper import paths, programs
from innkeeper.build.store import Store, hash_tree

SOURCE = Path(__file__).resolve().parent / "grpcurl"
PACKAGE = "github.com/fullstorydev/grpcurl/cmd/grpcurl"
PATIENCE = 240.0
"""Seconds after which a call counts as hung; nothing is asserted about time."""


@cache
def grpcurl() -> Path:
    """The program, out of the store if it is there. Go 1.19 is enough; its modules and objects are kept in the project's cache."""
    go, cache_root = programs.require("go"), paths.cache_root() / "go"
    settings = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -modcacherw", "GOTOOLCHAIN": "local"}
    places = {"GOPATH": str(cache_root), "GOMODCACHE": str(cache_root / "mod"), "GOCACHE": str(cache_root / "build")}

    def make(out: Path) -> None:
        subprocess.run(
            [go, "build", "-trimpath", "-buildvcs=false", "-o", out / "grpcurl", PACKAGE],
            stdin=subprocess.DEVNULL,
            cwd=SOURCE,
            env={**os.environ, **settings, **places},
            check=True,
        )

    return Store(paths.store_root()).step("grpcurl", {"source": hash_tree(SOURCE), "settings": dict(settings)}, make) / "grpcurl"


def call(socket: Path | str, *arguments: str, options: tuple[str, ...] = (), data: str = "") -> "subprocess.CompletedProcess[str]":
    """`grpcurl OPTIONS SOCKET ARGUMENTS` with `data` on standard input."""
    argv = [str(grpcurl()), "-unix", "-plaintext", *options, str(socket), *arguments]
    return subprocess.run(argv, input=data, capture_output=True, text=True, timeout=PATIENCE, check=False)
