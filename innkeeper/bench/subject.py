"""What can be measured, and the loop that does it fairly."""

import random
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")
GAP_SECONDS = 0.05


def shuffled(subjects: Mapping[str, Callable[[], T]], rounds: int, gap: float = GAP_SECONDS) -> dict[str, list[T]]:
    """What each subject says it took: `rounds` times each, in a new order each round, the first round thrown away."""
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
    """`work` as a subject: the seconds it takes."""

    def measure() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return measure
