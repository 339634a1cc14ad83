"""Children that hang, stop or die while they are made or taken down: the agent answers meanwhile, and nothing of them stays."""

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from innkeeper.client import RpcError
from innkeeper.image import to_proto
from innkeeper.wire import status
from innkeeper.wire.pb import agent_pb2, empty_pb2
from tests.escape.documents import Document
from tests.escape.target import Target
from tests.escape.test_pressure import CHECK_SECONDS

BUSY_SECONDS = 60.0
"""Seconds that a guest on a busy machine may need to answer that a deadline has passed. The client itself waits for 0.2."""
pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]


def while_it_lasts(target: Target, call: Callable[[], object]) -> RpcError | None:
    """Make a call and check the agent's health until it has its answer; the error it had."""
    failures: list[RpcError] = []

    def run() -> None:
        try:
            call()
        except RpcError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    checks = 0
    while thread.is_alive():
        assert target.agent.check(CHECK_SECONDS) == 1
        checks += 1
        thread.join(0.02)
    assert checks > 1, "the call was over at once"
    return failures[0] if failures else None


def create(target: Target, doc: Document, seconds: float) -> None:
    """CreateContainer with a deadline, as a shim's. The agent's answer to it is waited for."""
    id = target.new_id()
    request = agent_pb2.CreateContainerRequest(container_id=id, exec_id=id, OCI=to_proto(doc))
    call = target.agent.client.start("grpc.AgentService", "CreateContainer", request, empty_pb2.Empty, seconds)
    assert call.deadline is not None
    call.deadline += BUSY_SECONDS
    call.result()


def hook(target: Target, kind: str, *args: str, **fields: Any) -> Document:
    """A container with one hook, which is the payload."""
    doc = target.document("hold")
    doc["hooks"] = {kind: [{"path": target.inner(target.hook), "args": ["hook", *args], **fields}]}
    return doc


@pytest.mark.escape("E47")
@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_a_hook_that_hangs_ends_with_its_time(target: Target, kind: str) -> None:
    failure = while_it_lasts(target, lambda: create(target, hook(target, kind, "sleep", timeout=1), 60))
    assert failure is not None and "was not done within 1 s" in failure.message


@pytest.mark.escape("E47")
@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_a_hook_that_hangs_ends_with_the_callers_patience(target: Target, kind: str) -> None:
    failure = while_it_lasts(target, lambda: create(target, hook(target, kind, "sleep"), 1))
    assert failure is not None and failure.code == status.DEADLINE_EXCEEDED


@pytest.mark.escape("E47")
@pytest.mark.parametrize(("number", "seconds", "word"), [(signal.SIGSTOP, 3, "timeout"), (signal.SIGKILL, 60, "ended in set-up")])
def test_a_child_that_stops_or_dies_in_set_up_is_given_up(target: Target, number: signal.Signals, seconds: float, word: str) -> None:
    """A hook outside, which has its number from the state, sends it the signal."""
    doc = hook(target, "createRuntime", "signal-state", str(number.value), "+", "sleep-a-little")
    failure = while_it_lasts(target, lambda: create(target, doc, seconds))
    assert failure is not None and word in failure.message


@pytest.mark.escape("E47")
def test_a_container_whose_hook_forks_for_ever_is_given_up(target: Target) -> None:
    """In the container's own group, which ends as a whole."""
    doc = hook(target, "createContainer", "fork-for-ever", "+", "sleep", timeout=1)
    failure = while_it_lasts(target, lambda: create(target, doc, 60))
    assert failure is not None and "createContainer" in failure.message


@pytest.mark.escape("E47")
@pytest.mark.parametrize("how", ["paused", "stopped"])
def test_a_container_that_stands_still_is_removed(target: Target, how: str) -> None:
    """Frozen by its group, or each process by a signal."""
    id = target.create(target.document("bomb", "20"))
    target.agent.start_container(id)
    target.first_answers(id, 1)
    if how == "paused":
        target.agent.pause_container(id)
    else:
        target.exec(id, "stop-all")
    assert target.agent.check(CHECK_SECONDS) == 1
    target.agent.remove_container(id)


@pytest.mark.escape("E47")
def test_a_container_is_removed_while_others_ask_for_it(target: Target) -> None:
    """Waiting, reading, executing and signalling from other connections: all of them are answered."""
    for _ in range(2 if target.slow else 4):
        _remove_while_others_ask(target)


def _remove_while_others_ask(target: Target) -> None:
    id = target.create(target.document("hold"))
    target.agent.start_container(id)
    answered: list[str] = []

    def ask(name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except RpcError as error:
            assert not error.lost
        answered.append(name)

    calls: dict[str, Callable[[], object]] = {
        "wait": lambda: target.agent.wait_process(id, id, 60),
        "stdout": lambda: [target.agent.read_stdout(id, id, 100) for _ in range(2)],
        "stderr": lambda: target.agent.read_stderr(id, id, 100),
        "exec": lambda: target.exec(id, "identity"),
        "signal": lambda: target.agent.signal_process(id, "", signal.SIGUSR1),
        "stats": lambda: target.agent.stats_container(id),
    }
    threads = [threading.Thread(target=ask, args=entry) for entry in calls.items()]
    for thread in threads:
        thread.start()
    target.agent.remove_container(id)
    for thread in threads:
        thread.join()
    assert sorted(answered) == sorted(calls)
