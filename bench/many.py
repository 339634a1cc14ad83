"""Compare the hundredth container with the first, and measure the agent's memory for fifty."""

import time
from collections.abc import Mapping
from typing import Any

from bench.calls import Containers
from bench.figures import Section, figure, ratio, single
from bench.runtimes import with_args

IN_A_ROW = 100
ALIVE = 50
EACH_KB = 150.0
PART = 10
"""How many of the first and of the last containers the medians are taken of."""


def section(containers: Containers, spec: Mapping[str, Any]) -> Section:
    """Return the section of both measurements.

    `spec` is the complete specification of a container that ends at once.
    """
    result = Section("many containers, outside of a guest", note=f"{IN_A_ROW} one after the other, {ALIVE} alive at once")
    _in_a_row(result, containers, spec)
    _alive(result, containers, spec)
    return result


def _in_a_row(result: Section, containers: Containers, spec: Mapping[str, Any]) -> None:
    times = []
    for number in range(IN_A_ROW):
        start = time.perf_counter()
        containers.run(f"row-{number}", spec)
        times.append((time.perf_counter() - start) * 1e3)
    _linear(result, "one after the other", times)


def _alive(result: Section, containers: Containers, spec: Mapping[str, Any]) -> None:
    waiting = with_args(spec, ["/bin/sleep", "100000"])
    times: list[float] = []
    before = containers.agent.boot_timeline().resident_bytes
    try:
        for number in range(ALIVE):
            start = time.perf_counter()
            containers.create(f"alive-{number}", waiting)
            times.append((time.perf_counter() - start) * 1e3)
        each = (containers.agent.boot_timeline().resident_bytes - before) / 1e3 / ALIVE
    finally:
        for number in range(len(times)):
            containers.agent.remove_container(f"alive-{number}")
    _linear(result, "create and start, others alive", times)
    result.figures.append(single("the agent's memory for each alive", "kB", each, f"at most {EACH_KB:g}", each <= EACH_KB, ALIVE))


def _linear(result: Section, name: str, times: list[float]) -> None:
    first, last = times[:PART], times[-PART:]
    result.figures += [figure(f"{name}: first {PART}", "ms", first), figure(f"{name}: last {PART}", "ms", last)]
    result.figures.append(ratio(f"{name}: last / first", last, first, None))
