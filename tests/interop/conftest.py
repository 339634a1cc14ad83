"""The node that the tests of a file share."""

from collections.abc import Iterator

import pytest

from tests.interop.node import Node
from tests.interop.standing import standing


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """With the host's containerd; containers' files go into the guest by virtio-fs."""
    with standing(Node) as up:
        yield up
