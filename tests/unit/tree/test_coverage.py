"""Lines and branches of some packages and of the sandbox that their own tests run: no fewer than the numbers of pyproject.toml.

The tests run once more, in a process of their own, so that nothing else is slower or disturbed by the measurement. What they do in
other processes is not counted; tests/root covers most of agent.storage there.
"""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.needs import needs
from tests.paths import ROOT

MEASURED = ("agent", "wire", "loop", "storage", "container")
CONTRACT = ("connection", "connection_pair", "envelope", "frames")


@needs("module:coverage")
def test_nothing_is_covered_less_than_its_number(tmp_path: Path) -> None:
    numbers: dict[str, int] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["innkeeper"]["coverage"]
    environment = {**os.environ, "COVERAGE_FILE": str(tmp_path / "data")}
    coverage = [sys.executable, "-m", "coverage"]
    tests = [*(f"tests/unit/{name}" for name in MEASURED), *(f"tests/contract/test_{name}.py" for name in CONTRACT)]
    argv = [*coverage, "run", "--branch", f"--source={','.join(numbers)}", "--omit=*/pb/*", "-m", "pytest", "-q", *tests]
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    report = tmp_path / "report.json"
    subprocess.run([*coverage, "json", "-q", "-o", report], cwd=ROOT, env=environment, check=True)
    files = json.loads(report.read_text())["files"]
    measured = {name: _percent([entry["summary"] for path, entry in files.items() if _is_in(path, name)]) for name in numbers}
    assert {name: percent for name, percent in measured.items() if percent < numbers[name]} == {}


def _is_in(path: str, name: str) -> bool:
    """Tell whether a file is the module `name` or belongs to the package of that name."""
    return path.startswith((f"{name.replace('.', '/')}/", f"{name.replace('.', '/')}.py"))


def _percent(summaries: list[dict[str, int]]) -> float:
    covered = sum(summary["covered_lines"] + summary["covered_branches"] for summary in summaries)
    return 100 * covered / sum(summary["num_statements"] + summary["num_branches"] for summary in summaries)
