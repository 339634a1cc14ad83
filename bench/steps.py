"""The time of each step of one container.

The agent and the container's process measure them with the same clock.
"""

import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.calls import Containers
from bench.figures import Figure, Section
from bench.interleave import GAP_SECONDS

VARIABLE = "INNKEEPER_STEPS"
"""The agent's environment variable for a file, to which it appends the steps of each container."""


def section(containers: Containers, spec: Mapping[str, Any], record: Path, rounds: int) -> Section:
    """Run containers one after the other and return the section of their steps.

    `record` is the file that the agent was started with. The first container is not counted.
    """
    for number in range(rounds + 1):
        time.sleep(GAP_SECONDS)
        containers.run(f"step-{number}", spec)
    lines = record.read_text().splitlines()[1:]
    times: dict[str, list[float]] = {}
    for line in lines:
        for name, nanoseconds in json.loads(line):
            times.setdefault(name, []).append(nanoseconds / 1e6)
    medians = {name: statistics.median(values) for name, values in times.items()}
    total = sum(medians.values())
    result = Section("one container, step by step", note="the agent's steps, and those of its child in between")
    for name, values in times.items():
        share = f"{medians[name] / total:.0%}"
        result.figures.append(Figure(name, "ms", median=medians[name], best=min(values), samples=len(values), budget=share))
    best = sum(min(values) for values in times.values())
    result.figures.append(Figure("all", "ms", median=total, best=best, samples=len(lines)))
    return result
