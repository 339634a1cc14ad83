"""A node for the tests of each file, and what it must not leave."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.interop.node import Node, groups, left_behind

PLACES = ("containerd", "kata-containers", "netns", "runc", "vc", "virtiofsd")
"""Folders of /run that shims and daemons make and leave, empty."""
NODE = Path("/dev/vhost-vsock")
"""The shim looks for it; where there is none the harness makes an empty file."""


def remove(group: Path) -> None:
    """A group, or the ordinary directory that a runtime makes where a controller is not mounted."""
    try:
        group.rmdir()
    except OSError:
        shutil.rmtree(group)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    folder = Path(mkdtemp(prefix="ink-", dir="/run"))
    before = left_behind(folder)
    ours = [folder, *[place for name in PLACES if not (place := Path("/run", name)).exists()]]
    node_is_ours = not NODE.exists()
    groups_before = groups()
    made = Node(folder)
    try:
        made.up()
        yield made
    finally:
        made.down()
        if node_is_ours:
            NODE.unlink(missing_ok=True)
        for group in sorted(groups() - groups_before, reverse=True):  # a group before the one that it is in
            remove(group)
    assert left_behind(folder) - before == set()
    for place in ours:
        shutil.rmtree(place, ignore_errors=True)
