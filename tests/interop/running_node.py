"""Start and end a node, and check what it leaves."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from tests.interop.node import Node, groups, leftovers, remaining_leftovers

PLACES = ("containerd", "kata-containers", "netns", "runc", "vc", "virtiofsd")
"""Folders of /run that shims and daemons make and leave, empty."""
DEVICE = Path("/dev/vhost-vsock")
"""The shim looks for it; where there is none the harness makes an empty file."""


@contextmanager
def running_node(make: Callable[[Path], Node]) -> Iterator[Node]:
    """Start the node that `make` returns for a new folder; end it, and check what it leaves."""
    folder = Path(mkdtemp(prefix="ink-", dir="/run"))
    before = leftovers(folder)
    ours = [folder, *[place for name in PLACES if not (place := Path("/run", name)).exists()]]
    device_is_ours = not DEVICE.exists()
    groups_before = groups()
    node = make(folder)
    try:
        node.up()
        yield node
    finally:
        node.down()
        if device_is_ours:
            DEVICE.unlink(missing_ok=True)
        for group in sorted(groups() - groups_before, reverse=True):  # a group before the one that it is in
            _remove(group)
    assert remaining_leftovers(folder, before) == set()
    for place in ours:
        shutil.rmtree(place, ignore_errors=True)


def _remove(group: Path) -> None:
    """A group, or the ordinary directory that a runtime makes where a controller is not mounted."""
    try:
        group.rmdir()
    except OSError:
        shutil.rmtree(group)
