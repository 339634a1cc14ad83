"""A clone is enough: nothing in the tree is looked for outside of it."""

import ast
import re
from pathlib import Path

import pytest

from tests.paths import ROOT

FOLDERS = (".ci", "agent", "bench", "docs", "innkeeper", "kernel-config", "rootfs", "tests")
OUTSIDE = re.compile(r"\.\./shared|__file__\)\.resolve\(\)\.parents\[3\]|PROJECT\.parent\b|project_root\(\)\.parent\b")
"""Ways to name a folder beside the source tree, from a file two folders deep."""
LARGEST = 1 << 20
CODE = {".py", ".md", ".toml", ".sh", ".in", ".mod", ""}


def files() -> list[Path]:
    """The tree's files, without what Python or an editor leaves."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return [*found, *ROOT.glob("*.*")]


@pytest.mark.parametrize("folder", ["tests", "innkeeper", "bench", "docs"])
def test_nothing_beside_the_tree_is_named(folder: str) -> None:
    named = [path for path in files() if path.suffix in CODE and path.is_relative_to(ROOT / folder) and path != Path(__file__)]
    assert len(named) > 10
    found = [(str(path), line) for path in named for line in path.read_text().splitlines() if OUTSIDE.search(line)]
    assert found == []


def test_no_file_is_large() -> None:
    assert [str(path) for path in files() if path.stat().st_size > LARGEST] == []


def test_our_modules_are_run_with_safe_path() -> None:
    """`python -m` takes a package of the current folder first, which may be anybody's: -P leaves it out."""
    product = [ROOT / "build.py", *(ROOT / "innkeeper").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    found = []
    for path in product:
        for node in ast.walk(ast.parse(path.read_text())):
            words = [part.value for part in node.elts if isinstance(part, ast.Constant)] if isinstance(node, ast.List) else []
            if "-m" in words and any(isinstance(word, str) and word.startswith("innkeeper.") for word in words):
                found.append((path.name, "-P" in words))
    assert len(found) >= 3
    assert [name for name, safe in found if not safe] == []
