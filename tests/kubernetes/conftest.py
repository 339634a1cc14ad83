"""The cluster that the tests share, and what it may not leave. The run ends with what the Deployments took."""

from collections.abc import Iterator

import pytest

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.report import LINES
from tests.kubernetes.running import running_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as up:
        yield up


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if LINES:
        terminalreporter.section("the Deployment on Kubernetes")
        for line in LINES:
            terminalreporter.line(line)
