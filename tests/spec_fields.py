"""Field by field: what the container core does with the OCI runtime specification (1.3, Linux), and which test shows it.

    python -m tests.spec_fields

The table is spec_fields.toml. That it is complete, by the specification's list and by what the parser asks for, and that its tests exist,
is a test itself: tests/unit/container/test_spec_fields.py.
"""

import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("spec_fields.toml")
OUTCOMES = ("applied", "refused", "warned")


@dataclass(frozen=True, order=True)
class Field:
    """A field's path (`[]` for entries of a list, `*` for free keys), what becomes of it, and the tests that show it."""

    path: str
    outcome: str
    tests: tuple[str, ...]


def fields() -> list[Field]:
    """The table, in the order of its file."""
    document: Mapping[str, Mapping[str, list[str]]] = tomllib.loads(TABLE.read_text())
    return [Field(path, outcome, tuple(tests)) for outcome in OUTCOMES for path, tests in document[outcome].items()]


def lines() -> Iterator[str]:
    """The table as text, and its sums."""
    table = sorted(fields())
    width = max(len(field.path) for field in table)
    for field in table:
        for index, test in enumerate(field.tests):
            yield f"{field.path if not index else '':{width}}  {field.outcome if not index else '':8}  {test}".rstrip()
    yield ""
    yield ", ".join([f"{sum(field.outcome == outcome for field in table)} {outcome}" for outcome in OUTCOMES])


def main() -> int:
    """Print it."""
    print("\n".join(lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
