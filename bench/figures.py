"""Measured values and their budgets."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Figure:
    """A row. `median` and `best` are in `unit`, and `budget` is text.

    `best` is the smallest value, or the largest one of a throughput. `met` is None without a limit.
    """

    name: str
    unit: str
    median: float
    best: float
    samples: int
    budget: str = ""
    met: bool | None = None


@dataclass
class Section:
    """Rows under a heading. `left_out` is the reason if there are none."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    note: str = ""
    left_out: str = ""


def figure(name: str, unit: str, values: Sequence[float], budget: str = "", limit: float | None = None) -> Figure:
    """Return a row whose values should be small.

    The budget is met if the median is at most `limit`.
    """
    median = statistics.median(values)
    met = None if limit is None else median <= limit
    return Figure(name, unit, median=median, best=min(values), samples=len(values), budget=budget, met=met)


def single(name: str, unit: str, value: float, budget: str = "", met: bool | None = None, samples: int = 1) -> Figure:
    """Return a row with one value, which is not the median of several."""
    return Figure(name, unit, median=value, best=value, samples=samples, budget=budget, met=met)


def throughput(name: str, values: Sequence[float]) -> Figure:
    """Return a row in MB/s, whose values should be large."""
    return Figure(name, "MB/s", median=statistics.median(values), best=max(values), samples=len(values))


def ratio(name: str, ours: Sequence[float], theirs: Sequence[float], limit: float | None) -> Figure:
    """Return a row with our median divided by theirs.

    `best` is the ratio of the smallest values.
    """
    value = statistics.median(ours) / statistics.median(theirs)
    best = min(ours) / min(theirs)
    budget, met = ("", None) if limit is None else (f"at most {limit:g}", value <= limit)
    return Figure(name, "", median=value, best=best, samples=min(len(ours), len(theirs)), budget=budget, met=met)


def as_document(host: dict[str, str], sections: Sequence[Section]) -> dict[str, Any]:
    """Return all sections as a document for programs."""
    return {"format_version": FORMAT_VERSION, "host": host, "sections": [asdict(section) for section in sections]}


def format_value(value: float, unit: str) -> str:
    """Return a number as text, with only significant digits."""
    if unit in ("", "MB/s"):
        return f"{value:.3f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
    if unit == "count":
        return f"{value:.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
