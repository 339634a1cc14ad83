"""Install, configure and remove the guest on a node that runs Kata Containers."""

from innkeeper.kata.install import Plan, install, uninstall

__all__ = ["Plan", "install", "uninstall"]
