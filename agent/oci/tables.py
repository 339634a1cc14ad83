"""Output: tables for people, JSON for scripts."""

import json
from collections.abc import Sequence

COLUMN_MIN = 12

# The characters that Go's encoder escapes although JSON does not need it, so that the text is safe
# in HTML.
_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table like those of Go's tabwriter, which scripts cut.

    A column is as wide as its content plus three, and at least COLUMN_MIN.
    """
    lines = [head, *rows]
    widths = [max(COLUMN_MIN, *[len(line[column]) + 3 for line in lines]) for column in range(len(head) - 1)] + [0]
    return "\n".join("".join([cell.ljust(width) for cell, width in zip(line, widths, strict=True)]) for line in lines)


def compact(value: object) -> str:
    """Return JSON as Go's encoder writes it, byte for byte: without spaces and with few escapes.

    Scripts match it as text.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPED)


def indented(value: object, indent: str) -> str:
    """Return the same JSON on several lines."""
    return json.dumps(value, ensure_ascii=False, indent=indent).translate(_ESCAPED)
