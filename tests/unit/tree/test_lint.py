"""The tree keeps to its own style: ruff, and mypy --strict."""

import subprocess
import sys

from innkeeper.paths import cache_root
from tests.needs import needs
from tests.paths import ROOT


def _clean(*argv: str) -> None:
    done = subprocess.run([sys.executable, "-m", *argv], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout


@needs("module:ruff")
def test_ruff() -> None:
    _clean("ruff", "check", "--no-cache", ".")


@needs("module:mypy")
def test_mypy() -> None:
    _clean("mypy", "--strict", f"--cache-dir={cache_root() / 'mypy'}")
