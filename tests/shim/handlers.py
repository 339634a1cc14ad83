"""More of containerd's configuration than a node has by itself: handlers, and the erofs snapshotter. @DIR@ is the node's folder."""

from pathlib import Path

from innkeeper.guest.host_programs import debian_program
from tests.shim.node import Node

HANDLER = """
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]
runtime_type = "io.containerd.innkeeper.v2"
privileged_without_host_devices = true
{more}
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}.options]
ConfigPath = "@DIR@/shim.toml"
"""
EROFS = """
[plugins."io.containerd.snapshotter.v1.erofs"]
default_size = "64MiB"
[plugins."io.containerd.service.v1.diff-service"]
default = ["erofs", "walking"]
"""
"""It is in containerd 2.1 and later, and needs `mkfs_erofs` on containerd's PATH."""
COPIES = HANDLER.format(name="copies", more='snapshotter = "erofs"').replace("shim.toml", "copies.toml")
"""The handler `copies`, whose VMs have no shared folder once `share_nothing` has said so."""


def mkfs_erofs() -> Path:
    """Return a program of version 1.7 or later."""
    return debian_program("erofs-utils", "/usr/bin/mkfs.erofs")


def share_nothing(node: Node) -> None:
    """Write the configuration of the handler `copies`. It has no virtiofsd."""
    values = {**node.values, "virtiofsd": "/nowhere", "shared_fs": "none"}
    node.settings("copies.toml", **values, templates=node.folder / "none")
