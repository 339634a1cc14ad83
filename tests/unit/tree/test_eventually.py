"""Waiting: until something holds, until a call succeeds, and what is said of it if it never does."""

from pathlib import Path

import pytest

from tests.eventually import eventually, pause, poll, retry

BRIEF = 0.01


def test_the_first_true_value_is_returned() -> None:
    values = iter(["", "", "here", "later"])
    assert eventually(lambda: next(values), every=0) == "here"


def test_what_never_holds_fails_with_what_is_said_of_it() -> None:
    with pytest.raises(AssertionError, match="the door is shut"):
        eventually(lambda: False, "the door is shut", BRIEF)
    with pytest.raises(AssertionError, match="three"):
        eventually(lambda: False, lambda: "three", BRIEF)
    assert poll(list[int], BRIEF) == []


def test_a_call_is_made_until_it_raises_no_more() -> None:
    results = iter([KeyError("a"), KeyError("b"), None])

    def call() -> str:
        if error := next(results):
            raise error
        return "done"

    assert retry(call, KeyError) == "done"
    with pytest.raises(StopIteration):
        retry(call, KeyError)


def test_a_call_is_given_up_with_its_own_error_or_when_nothing_is_left_to_wait_for(tmp_path: Path) -> None:
    def gone() -> None:
        raise AssertionError("it has ended")

    with pytest.raises(FileNotFoundError):
        retry((tmp_path / "none").read_text, FileNotFoundError, seconds=BRIEF)
    with pytest.raises(AssertionError, match="it has ended"):
        retry((tmp_path / "none").read_text, FileNotFoundError, gone)


def test_a_pause_has_a_reason() -> None:
    with pytest.raises(AssertionError):
        pause(0, "")
