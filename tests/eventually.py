"""Waiting for what cannot be awaited otherwise: asked again until it holds, with a deadline.

Tests call time.sleep nowhere else: pyproject.toml has ruff refuse it.
"""

import time
from collections.abc import Callable
from typing import TypeVar

DEADLINE = 60.0
"""Seconds: far more than anything here takes, for machines that are slow or busy."""
EVERY = 0.05

T = TypeVar("T")


def poll(condition: Callable[[], T], seconds: float = DEADLINE, every: float = EVERY) -> T:
    """Return the first true value of `condition`, or the last one after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(every)
    return value


def eventually(condition: Callable[[], T], describe: Callable[[], object] | str = "", seconds: float = DEADLINE, every: float = EVERY) -> T:
    """Return the first true value of `condition`. Fail with what `describe` says after `seconds`."""
    if value := poll(condition, seconds, every):
        return value
    raise AssertionError((describe if isinstance(describe, str) else describe()) or f"still not so after {seconds:g} s")


def retry(call: Callable[[], T], errors: type[Exception], alive: Callable[[], None] = lambda: None, seconds: float = DEADLINE) -> T:
    """Return what `call` returns once it no longer raises one of `errors`, which is raised after `seconds`.

    `alive` is called between attempts, and raises if there is nothing left to wait for.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except errors:
            alive()
            if time.monotonic() >= deadline:
                raise
        time.sleep(EVERY)


def pause(seconds: float, reason: str) -> None:
    """Let time pass where no event tells the end of the wait. `reason` says what the time is for: it may not be empty."""
    assert reason
    time.sleep(seconds)
