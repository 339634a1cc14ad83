"""Output of the commands: tables for people, JSON for programs, times and sizes in words."""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any


def print_json(value: Any) -> None:
    """Print one JSON document to standard output."""
    json.dump(value, sys.stdout, indent=2, sort_keys=False)
    sys.stdout.write("\n")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table. Columns are as wide as their widest cell, and the last one is not padded."""
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    for row in (headings, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def ago(since: float) -> str:
    """Return the time since then, such as "12 seconds" or "3 hours"."""
    return duration(time.time() - since)


def duration(seconds: float) -> str:
    """Return a duration as text, in the largest unit that fits at least twice, else in seconds."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}s"
    whole = max(0, int(seconds))
    return f"{whole} second{'' if whole == 1 else 's'}"
