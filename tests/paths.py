"""Where the tree of this project is, for tests in whatever folder."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
