"""What is printed: tables for people, JSON for scripts."""

import json
from collections.abc import Sequence

COLUMN_MIN = 12

# What Go's encoder escapes beyond JSON's own need, so that text may stand in HTML.
_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as what is in them and three more, at least COLUMN_MIN: as Go's tables are, which scripts cut."""
    lines = [head, *rows]
    widths = [max(COLUMN_MIN, *[len(line[column]) + 3 for line in lines]) for column in range(len(head) - 1)] + [0]
    return "\n".join("".join([cell.ljust(width) for cell, width in zip(line, widths, strict=True)]) for line in lines)


def compact(value: object) -> str:
    """JSON as Go's encoder writes it, byte for byte: without spaces, characters as they are. Scripts match it as text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPED)


def indented(value: object, indent: str) -> str:
    """The same on many lines."""
    return json.dumps(value, ensure_ascii=False, indent=indent).translate(_ESCAPED)
