"""A node from its start to its end, and what it must not leave."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from tests.interop.node import Node, groups, left_behind, left_in_the_end

PLACES = ("containerd", "kata-containers", "netns", "runc", "vc", "virtiofsd")
"""Folders of /run that shims and daemons make and leave, empty."""
DEVICE = Path("/dev/vhost-vsock")
"""The shim looks for it; where there is none the harness makes an empty file."""


@contextmanager
def standing(make: Callable[[Path], Node]) -> Iterator[Node]:
    """The node that `make` gives for a new folder."""
    folder = Path(mkdtemp(prefix="ink-", dir="/run"))
    before = left_behind(folder)
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
    assert left_in_the_end(folder, before) == set()
    for place in ours:
        shutil.rmtree(place, ignore_errors=True)


def _remove(group: Path) -> None:
    """A group, or the ordinary directory that a runtime makes where a controller is not mounted."""
    try:
        group.rmdir()
    except OSError:
        shutil.rmtree(group)
