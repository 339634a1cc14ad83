"""Where the time of one container goes, step by step, as the agent and the container's process measured it on one clock."""

import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from innkeeper.bench.calls import Containers
from innkeeper.bench.figures import Figure, Section
from innkeeper.bench.subject import GAP_SECONDS

VARIABLE = "INNKEEPER_STEPS"
"""The agent's variable: a file that it appends a container's steps to."""


def section(containers: Containers, placed: Mapping[str, Any], record: Path, rounds: int) -> Section:
    """Run containers one after the other; `record` is the file that the agent was started with."""
    for number in range(rounds + 1):
        time.sleep(GAP_SECONDS)
        containers.run(f"step-{number}", placed)
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
        result.figures.append(Figure(name, "ms", medians[name], min(values), len(values), share))
    result.figures.append(Figure("all", "ms", total, sum(min(values) for values in times.values()), len(lines)))
    return result
