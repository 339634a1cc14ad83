"""Every test here passes twice: in a VM that boots, and in one that starts from a template."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module", params=["cold", "template"])
def start(request: pytest.FixtureRequest) -> Iterator[str]:
    """How `run` starts its VM, where the test does not say. Fixtures that run containers for a module depend on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INNKEEPER_VM_START", request.param)
        yield request.param
