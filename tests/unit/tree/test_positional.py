"""Who reads how an object is made can tell what each value is: beyond five, values are named."""

import ast

import pytest

from tests.paths import ROOT

PRODUCT = ("build.py", "innkeeper", "agent", "bench", "manual")
MOST = 5


def _class_name(call: ast.Call) -> str:
    """Return the name of the class that a call makes an object of, or "" for another function."""
    name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr if isinstance(call.func, ast.Attribute) else ""
    return name if name.lstrip("_")[:1].isupper() else ""


def crowded(source: str) -> list[tuple[int, str]]:
    """Return line and class of the calls with more than MOST values without a name."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and len(node.args) > MOST)
    return [(call.lineno, name) for call in calls if (name := _class_name(call))]


@pytest.mark.parametrize("part", PRODUCT)
def test_a_class_gets_few_values_without_a_name(part: str) -> None:
    paths = [ROOT / part] if part.endswith(".py") else sorted((ROOT / part).rglob("*.py"))
    found = {str(path.relative_to(ROOT)): lines for path in paths if (lines := crowded(path.read_text()))}
    assert found == {}, f"name the values, or make the dataclass kw_only: no more than {MOST} without a name"


def test_such_calls_are_found() -> None:
    assert crowded("a.Point(1, 2, 3, 4, 5, 6)\nPoint(1, 2, 3, 4, 5, z=6)\nprint(1, 2, 3, 4, 5, 6)") == [(1, "Point")]
