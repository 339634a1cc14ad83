"""Signals are read as kill(1) and docker read them."""

import signal

import pytest

from innkeeper.engine import signals
from innkeeper.errors import InnkeeperError


@pytest.mark.parametrize(
    ("text", "number"), [("9", 9), ("TERM", 15), ("SIGTERM", 15), ("sigkill", 9), ("RTMIN+3", signal.SIGRTMIN + 3), (" HUP ", 1)]
)
def test_names_and_numbers(text: str, number: int) -> None:
    assert signals.parse(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "NOPE", "RTMIN+99", "RTMIN+x", "-9"])
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(InnkeeperError, match="invalid signal"):
        signals.parse(text)
