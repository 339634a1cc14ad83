"""The node that most tests share. A module that wants another one has a fixture of the same name."""

from collections.abc import Iterator

import pytest

from tests.interop.node import Node
from tests.interop.running_node import running_node


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """With the host's containerd; containers' files go into the guest by virtio-fs. Whoever makes a pod or a container removes it."""
    with running_node(Node) as up:
        yield up
