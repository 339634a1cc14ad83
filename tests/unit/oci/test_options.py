"""The table of options in docs/oci.md is what the parser knows, and each row has a test of what the option does."""

import ast
from functools import cache

import pytest

from agent.errors import Refused
from agent.oci import command_table
from agent.oci.arguments import UsageError, parse
from tests.oci import options
from tests.oci.options import Row
from tests.paths import ROOT

VERBS = [options.GLOBAL, *command_table.MODULES]


@pytest.mark.parametrize("row", options.rows(), ids=lambda row: f"{row.verb} {row.option}")
def test_each_row(row: Row) -> None:
    """Taken, refused by its name with a reason, or unknown; a difference has its reason."""
    listed = options.ours(row.verb)
    known = {option.name: option for option in listed}
    option = known.get(row.option)
    value = (option.choices or ("1",))[0] if option and option.value else "true"
    words = [f"--{row.option}={value}"]
    if row.ours == "yes":
        assert parse(words, listed).text(row.option) == value
    elif row.ours == "refused":
        with pytest.raises(Refused, match=f"^--{row.option}: ..."):
            parse(words, listed)
    else:
        assert row.ours == "no"
        with pytest.raises(UsageError, match="unknown option"):
            parse(words, listed)
    assert row.ours == "yes" or len(row.why) > 15


def test_no_option_is_left_out() -> None:
    rows = {(row.verb, row.option) for row in options.rows()}
    ours = {(verb, option.name) for verb in VERBS for option in options.ours(verb) if option.name not in options.OF_THE_PARSERS}
    assert sorted(ours - rows) == []
    assert len(rows) == len(options.rows())


def test_each_row_names_a_test_that_exists() -> None:
    """Of what the option does: that it is known to the parser is enough for one that is refused alone."""
    rows = options.rows()
    assert [row for row in rows if row.test.partition("::")[2] not in functions_of(row.test.partition("::")[0])] == []
    assert [row for row in rows if row.ours == "yes" and row.test.endswith(f"::{test_each_row.__name__}")] == []


@cache
def functions_of(path: str) -> frozenset[str]:
    """Return the names of the functions of a test file."""
    return frozenset(node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.FunctionDef))
