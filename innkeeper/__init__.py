"""Innkeeper, the host's side."""

__version__ = "0.1.0"
