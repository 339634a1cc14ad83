"""The version is written twice, for the agent imports nothing of the host's side: both are the same."""

import agent
import innkeeper


def test_the_agents_version_is_the_projects() -> None:
    assert innkeeper.__version__ == agent.VERSION
