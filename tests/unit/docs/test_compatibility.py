"""docs/compatibility.md: every row has an id of its own, a reason where it differs from docker, and tests that exist."""

import ast
import re
from functools import cache
from typing import NamedTuple

from tests.paths import ROOT

HEADER = "| id | behaviour | docker | ours | why | test |"
SAME = "same"


class Row(NamedTuple):
    """One line of a table, its cells in the order of HEADER."""

    id: str
    behaviour: str
    docker: str
    ours: str
    why: str
    test: str


def read_rows() -> list[Row]:
    """Return the rows of all tables of the page. Raises AssertionError for a line with another number of cells."""
    rows = []
    for line in (ROOT / "docs/compatibility.md").read_text().splitlines():
        if not line.startswith("|") or line == HEADER or line.startswith("|---"):
            continue
        cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        assert len(cells) == len(Row._fields), f"{len(cells)} cells: {line}"
        rows.append(Row(*cells))
    return rows


def named_tests(row: Row) -> list[str]:
    """Return the tests that a row names, each as FILE::FUNCTION."""
    return re.findall(r"`([^`]+)`", row.test)


@cache
def functions_of(path: str) -> frozenset[str]:
    """Return the names of the functions of a test file; empty where there is no such file."""
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    return frozenset(node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef))


def test_ids_are_unique() -> None:
    ids = [row.id for row in read_rows()]
    assert ids
    assert [id for id in ids if re.fullmatch(r"[A-Z][0-9]{2}", id) is None] == []
    assert sorted(set(ids)) == sorted(ids)


def test_every_cell_is_filled_and_every_difference_has_a_reason() -> None:
    assert [row for row in read_rows() if not (row.behaviour and row.docker and row.ours)] == []
    assert [row for row in read_rows() if (row.ours == SAME) != (row.why == "")] == []


def test_every_row_names_tests_that_exist() -> None:
    missing = {
        row.id: row.test
        for row in read_rows()
        if not named_tests(row) or any(test.partition("::")[2] not in functions_of(test.partition("::")[0]) for test in named_tests(row))
    }
    assert missing == {}
