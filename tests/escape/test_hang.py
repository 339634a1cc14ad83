"""Children that hang, stop or die while they are made or taken down: the agent answers meanwhile, and nothing of them stays."""

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from innkeeper.client import RpcError
from innkeeper.image import to_proto
from innkeeper.wire import status
from innkeeper.wire.pb import agent_pb2, empty_pb2
from tests.escape.documents import Document
from tests.escape.ground import Ground
from tests.escape.test_pressure import CHECK_SECONDS

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]


def while_it_lasts(ground: Ground, call: Callable[[], object]) -> RpcError | None:
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
        assert ground.agent.check(CHECK_SECONDS) == 1
        checks += 1
        time.sleep(0.02)
    thread.join()
    assert checks > 1, "the call was over at once"
    return failures[0] if failures else None


def create(ground: Ground, doc: Document, seconds: float) -> None:
    """CreateContainer with a deadline, as a shim's."""
    id = ground.new_id()
    request = agent_pb2.CreateContainerRequest(container_id=id, exec_id=id, OCI=to_proto(doc))
    ground.agent.client.call("grpc.AgentService", "CreateContainer", request, empty_pb2.Empty, seconds)


def hook(ground: Ground, kind: str, *args: str, **fields: Any) -> Document:
    """A container with one hook, which is the payload."""
    doc = ground.document("hold")
    doc["hooks"] = {kind: [{"path": ground.inner(ground.hook), "args": ["hook", *args], **fields}]}
    return doc


@pytest.mark.escape("E47")
@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_a_hook_that_hangs_ends_with_its_time(ground: Ground, kind: str) -> None:
    failure = while_it_lasts(ground, lambda: create(ground, hook(ground, kind, "sleep", timeout=1), 60))
    assert failure is not None and "was not done within 1 s" in failure.message


@pytest.mark.escape("E47")
@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_a_hook_that_hangs_ends_with_the_callers_patience(ground: Ground, kind: str) -> None:
    failure = while_it_lasts(ground, lambda: create(ground, hook(ground, kind, "sleep"), 1))
    assert failure is not None and failure.code == status.DEADLINE_EXCEEDED


@pytest.mark.escape("E47")
@pytest.mark.parametrize(("number", "word"), [(signal.SIGSTOP, "timeout"), (signal.SIGKILL, "ended in set-up")])
def test_a_child_that_stops_or_dies_in_set_up_is_given_up(ground: Ground, number: signal.Signals, word: str) -> None:
    """A hook outside, which has its number from the state, sends it the signal."""
    doc = hook(ground, "createRuntime", "signal-state", str(number.value), "+", "sleep-a-little")
    failure = while_it_lasts(ground, lambda: create(ground, doc, 3))
    assert failure is not None and word in failure.message


@pytest.mark.escape("E47")
def test_a_container_whose_hook_forks_for_ever_is_given_up(ground: Ground) -> None:
    """In the container's own group, which ends as a whole."""
    doc = hook(ground, "createContainer", "fork-for-ever", "+", "sleep", timeout=1)
    failure = while_it_lasts(ground, lambda: create(ground, doc, 60))
    assert failure is not None and "createContainer" in failure.message


@pytest.mark.escape("E47")
@pytest.mark.parametrize("how", ["paused", "stopped"])
def test_a_container_that_stands_still_is_removed(ground: Ground, how: str) -> None:
    """Frozen by its group, or each process by a signal."""
    id = ground.create(ground.document("bomb", "20"))
    ground.agent.start_container(id)
    ground.first_answers(id, 1)
    if how == "paused":
        ground.agent.pause_container(id)
    else:
        ground.exec(id, "stop-all")
    assert ground.agent.check(CHECK_SECONDS) == 1
    ground.agent.remove_container(id)


@pytest.mark.escape("E47")
def test_a_container_is_removed_while_others_ask_for_it(ground: Ground) -> None:
    """Waiting, reading, executing and signalling from other connections: all of them are answered."""
    for _ in range(2 if ground.slow else 4):
        _remove_while_others_ask(ground)


def _remove_while_others_ask(ground: Ground) -> None:
    id = ground.create(ground.document("hold"))
    ground.agent.start_container(id)
    answered: list[str] = []

    def ask(name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except RpcError as error:
            assert not error.lost
        answered.append(name)

    calls: dict[str, Callable[[], object]] = {
        "wait": lambda: ground.agent.wait_process(id, id, 60),
        "stdout": lambda: [ground.agent.read_stdout(id, id, 100) for _ in range(2)],
        "stderr": lambda: ground.agent.read_stderr(id, id, 100),
        "exec": lambda: ground.exec(id, "identity"),
        "signal": lambda: ground.agent.signal_process(id, "", signal.SIGUSR1),
        "stats": lambda: ground.agent.stats_container(id),
    }
    threads = [threading.Thread(target=ask, args=entry) for entry in calls.items()]
    for thread in threads:
        thread.start()
    ground.agent.remove_container(id)
    for thread in threads:
        thread.join()
    assert sorted(answered) == sorted(calls)
