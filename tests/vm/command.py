"""Drives the command line as a user does: another process, its streams, its exit status."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.paths import ROOT

ARGV = [sys.executable, "-m", "innkeeper.cli"]
PATIENCE = 300
"""Seconds after which a command counts as hung; nothing is asserted about time."""


def environment() -> dict[str, str]:
    """Ours, with the source tree importable from any folder."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def innkeeper(
    *argv: str, stdin: Any = subprocess.DEVNULL, data: bytes | None = None, patience: float = PATIENCE
) -> "subprocess.CompletedProcess[bytes]":
    """Run one command to its end, which comes within `patience` seconds."""
    given: dict[str, Any] = {"input": data} if data is not None else {"stdin": stdin}
    return subprocess.run([*ARGV, *argv], capture_output=True, env=environment(), timeout=patience, check=False, **given)


def succeed(*argv: str, data: bytes | None = None, patience: float = PATIENCE) -> str:
    """The standard output of a command that must succeed."""
    done = innkeeper(*argv, data=data, patience=patience)
    assert done.returncode == 0, f"{argv}: status {done.returncode}\n{done.stderr.decode(errors='replace')}"
    return done.stdout.decode()


def inspected(name: str) -> dict[str, Any]:
    """What `inspect` knows of one container."""
    document: list[dict[str, Any]] = json.loads(succeed("inspect", name))
    assert len(document) == 1
    return document[0]


@contextmanager
def detached(image: str, *command: str, options: Sequence[str] = ()) -> Iterator[str]:
    """A container in the background; its id. Whatever happens it is removed at the end."""
    id = succeed("run", "-d", *options, image, *command).strip()
    try:
        yield id
    finally:
        innkeeper("rm", "-f", id)
