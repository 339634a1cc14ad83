"""The host's side of Innkeeper."""

__version__ = "0.1.0"
