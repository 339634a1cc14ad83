"""The node that the tests share. What a test makes is gone at its end."""

from collections.abc import Iterator

import pytest

from tests.shim.node import Node, running_node, unchanged


@pytest.fixture(scope="session")
def daemon() -> Iterator[Node]:
    with running_node() as up:
        yield up


@pytest.fixture
def node(daemon: Node) -> Iterator[Node]:
    """After each test there is no process, mount, socket or folder more than before."""
    with unchanged(daemon):
        yield daemon
