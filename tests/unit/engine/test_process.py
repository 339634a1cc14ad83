"""Signals to a process in the guest: what the agent answers decides, whatever its message says."""

from typing import Any

import pytest

from innkeeper.client import RpcError
from innkeeper.engine.guest_agent import Process
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
