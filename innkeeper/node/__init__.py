"""Our containerd shim on a node: install it, remove it, and say what the node lacks."""

from innkeeper.node.install import Layout, install, remove_templates, uninstall

__all__ = ["Layout", "install", "remove_templates", "uninstall"]
