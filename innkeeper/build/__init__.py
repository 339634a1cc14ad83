"""Deprecated name of `innkeeper.guest`, kept until 0.2 for programs written against the old one."""

from innkeeper.guest import Artifacts, Variant, build

__all__ = ["Artifacts", "Variant", "build"]
