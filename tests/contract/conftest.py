"""Settings of this folder's property tests, and the agent that most tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.contract.agent_process import AgentProcess, running_agent
from tests.contract.go_oracle import build

settings.register_profile("contract", deadline=None, database=None)
settings.load_profile("contract")


@pytest.fixture(scope="session")
def shared_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with running_agent(tmp_path_factory.mktemp("agent")) as agent:
        yield agent


@pytest.fixture
def agent(shared_agent: AgentProcess) -> Iterator[AgentProcess]:
    """The shared agent; a new client must be served after the test as before it."""
    yield shared_agent
    assert shared_agent.alive(), shared_agent.log()
    with shared_agent.raw() as raw:
        raw.check(1)


@pytest.fixture(scope="session")
def go_oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("oracle"))
