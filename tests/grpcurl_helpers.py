"""The real grpcurl, built once from the module that `tests/grpcurl` pins: a gRPC client in another language."""

import subprocess
from functools import cache
from pathlib import Path

from tests import go_helpers

SOURCE = Path(__file__).resolve().parent / "grpcurl"
PACKAGE = "github.com/fullstorydev/grpcurl/cmd/grpcurl"
PATIENCE = 240.0
"""Seconds after which a call counts as hung; nothing is asserted about time."""


@cache
def grpcurl() -> Path:
    """The program. Go 1.19 is enough."""
    return go_helpers.build("grpcurl", SOURCE, PACKAGE) / "grpcurl"


def call(socket: Path | str, *arguments: str, options: tuple[str, ...] = (), data: str = "") -> "subprocess.CompletedProcess[str]":
    """`grpcurl OPTIONS SOCKET ARGUMENTS` with `data` on standard input."""
    # The first connection starts the gateway, which takes longer than the 10 s that grpcurl waits by itself on a busy emulated guest.
    argv = [str(grpcurl()), "-unix", "-plaintext", "-connect-timeout", str(PATIENCE), *options, str(socket), *arguments]
    return subprocess.run(argv, input=data, capture_output=True, text=True, timeout=PATIENCE, check=False)
