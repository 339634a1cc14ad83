"""Install, configure and remove the guest on a node that runs Kata Containers."""

from innkeeper.kata.install import Layout, install, uninstall

__all__ = ["Layout", "install", "uninstall"]
