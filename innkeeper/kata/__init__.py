"""The guest for a node that runs Kata Containers: laid out, configured and taken away again."""

from innkeeper.kata.install import Plan, install, uninstall

__all__ = ["Plan", "install", "uninstall"]
