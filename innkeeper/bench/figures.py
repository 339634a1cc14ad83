"""What was measured, and the budget it is held against."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Figure:
    """One row. `median` and `best` are in `unit`; `best` is the smallest, of a throughput the largest. `budget` says it in words."""

    name: str
    unit: str
    median: float
    best: float
    samples: int
    budget: str = ""
    met: bool | None = None


@dataclass
class Section:
    """Rows under a heading. `left_out` says why there are none."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    note: str = ""
    left_out: str = ""


def figure(name: str, unit: str, values: Sequence[float], budget: str = "", limit: float | None = None) -> Figure:
    """A row of which less is better; `limit` decides whether the budget is met by the median."""
    median = statistics.median(values)
    return Figure(name, unit, median, min(values), len(values), budget, None if limit is None else median <= limit)


def throughput(name: str, values: Sequence[float]) -> Figure:
    """A row in MB/s, of which more is better."""
    return Figure(name, "MB/s", statistics.median(values), max(values), len(values))


def ratio(name: str, ours: Sequence[float], theirs: Sequence[float], limit: float | None) -> Figure:
    """Our median over theirs; the best is that of the two smallest values."""
    value = statistics.median(ours) / statistics.median(theirs)
    best = min(ours) / min(theirs)
    budget = "" if limit is None else f"at most {limit:g}"
    return Figure(name, "", value, best, min(len(ours), len(theirs)), budget, None if limit is None else value <= limit)


def as_document(host: dict[str, str], sections: Sequence[Section]) -> dict[str, Any]:
    """All of it for programs."""
    return {"format_version": FORMAT_VERSION, "host": host, "sections": [asdict(section) for section in sections]}


def shown(value: float, unit: str) -> str:
    """A number with as many digits as mean something."""
    if unit in ("", "MB/s"):
        return f"{value:.3f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
    if unit == "count":
        return f"{value:.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
