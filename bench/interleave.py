"""The loop that measures several subjects fairly."""

import random
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")
GAP_SECONDS = 0.05
"""Seconds between two measurements."""


def shuffled(subjects: Mapping[str, Callable[[], T]], rounds: int, gap: float = GAP_SECONDS) -> dict[str, list[T]]:
    """Return the values that each subject returned, `rounds` of them.

    Each round has a new random order. A first round is run and not counted.
    """
    order = list(subjects)
    times: dict[str, list[T]] = {name: [] for name in order}
    chance = random.Random(7)
    for number in range(rounds + 1):
        chance.shuffle(order)
        for name in order:
            time.sleep(gap)
            taken = subjects[name]()
            if number:
                times[name].append(taken)
    return times


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """Return a subject that measures the seconds that `work` takes."""

    def measure() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return measure
