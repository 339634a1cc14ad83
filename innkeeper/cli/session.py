"""Deprecated name of `innkeeper.engine.session`, kept until 0.2 for existing programs."""

from innkeeper.engine.session import Session, _scratch_disk, opened

__all__ = ["Session", "_scratch_disk", "opened"]
