"""Signals to a process in the guest, and the end of the sandbox: what the agent answers decides."""

from typing import Any

import pytest

from innkeeper.client import RpcError
from innkeeper.engine.guest_agent import END_SECONDS, Process, destroy_sandbox
from innkeeper.wire import status


class Answers:
    """An agent that answers every signal with one error, or with success."""

    def __init__(self, error: RpcError | None = None) -> None:
        self.asked: list[tuple[str, str, int]] = []
        self._error = error

    def signal_process(self, container_id: str, exec_id: str, signum: int) -> None:
        self.asked.append((container_id, exec_id, signum))
        if self._error is not None:
            raise self._error


def signalled(error: RpcError | None) -> Answers:
    answers: Any = Answers(error)
    Process(answers, "box", "more").signal(15)
    assert isinstance(answers, Answers)
    return answers


@pytest.mark.parametrize("error", [None, RpcError(status.NOT_FOUND, "process 'more' not found")])
def test_a_process_that_has_ended_is_no_error(error: RpcError | None) -> None:
    assert signalled(error).asked == [("box", "more", 15)]


@pytest.mark.parametrize("code", [status.FAILED_PRECONDITION, status.INTERNAL, status.INVALID_ARGUMENT])
def test_any_other_answer_is_an_error(code: int) -> None:
    with pytest.raises(RpcError):
        signalled(RpcError(code, "signal: ESRCH: No such process"))


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (None, 0),
        (RpcError(status.UNAVAILABLE, "DestroySandbox: connection lost", lost=True), END_SECONDS),
        (RpcError(status.PERMISSION_DENIED, "DestroySandbox is blocked by policy"), 0),
    ],
    ids=["answered", "lost", "refused"],
)
def test_only_a_guest_whose_answer_is_lost_may_power_off_by_itself(error: RpcError | None, seconds: float) -> None:
    class Ending:
        def destroy_sandbox(self) -> None:
            if error is not None:
                raise error

    agent: Any = Ending()
    assert destroy_sandbox(agent) == seconds
