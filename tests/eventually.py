"""Waiting for what cannot be awaited otherwise: asked again until it holds, with a deadline."""

import time
from collections.abc import Callable

DEADLINE = 30.0
"""Seconds: far more than anything here takes, for machines that are slow or busy."""


def eventually(holds: Callable[[], bool], describe: Callable[[], str] = str, seconds: float = DEADLINE, every: float = 0.05) -> None:
    """Return when `holds` does. Fail with what `describe` says after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= deadline:
            raise AssertionError(describe() or f"still not so after {seconds:g} s")
        time.sleep(every)
