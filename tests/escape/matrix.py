"""The rules beside the tests that hold them: `docs/escapes.md`. Run as a program it writes that file."""

import importlib
import inspect
from collections import defaultdict
from pathlib import Path

from tests.escape.rules import RULES

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parents[1] / "docs/escapes.md"
HEAD = """\
# Escapes: rules and tests

What published escapes of container runtimes teach, as rules that the container core keeps, and for each the tests in `tests/escape`
that hold it. In a test a small static program (`tests/payload`) runs in a container of the default profile, tries what the escape did,
and prints what it observed: as root, as root of a user namespace, as an ordinary user, and by a second process in a running container.
It does so below an agent that is an ordinary process, and below the agent in a guest (`here` and `inside` are tests for one of them alone).
After every test the agent's descriptors, mounts, children, groups and files are what they were, and nothing outside of the container's
root has changed.

Written by `python -m tests.escape.matrix`; a test compares.

| rule | from | what holds | held by |
|---|---|---|---|
"""
LATER = """
What the agent has not yet, and these rules are for as well:

| rule | part |
|---|---|
"""


def held_by() -> dict[str, list[str]]:
    """Rule -> the tests that are marked with it, as `module: name`."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(f"tests.escape.{path.stem}")
        for name, function in vars(module).items():
            if not name.startswith("test_") or not inspect.isfunction(function):
                continue
            for mark in getattr(function, "pytestmark", []):
                if mark.name == "escape":
                    for rule in mark.args:
                        found[rule].append(f"{path.stem.removeprefix('test_')}: {_words(name)}{_only(function)}")
    return found


def _words(name: str) -> str:
    return name.removeprefix("test_").replace("_", " ")


def _only(function: object) -> str:
    names = inspect.signature(function).parameters  # type: ignore[arg-type]
    return next((f" (`{name}`)" for name in ("here", "inside") if name in names), "")


def document() -> str:
    """The text of `docs/escapes.md`."""
    held = held_by()
    rows = [f"| {rule.id} | {rule.origin} | {rule.rule} | {'; '.join(sorted(held[rule.id]))} |" for rule in RULES]
    later = [f"| {rule.id} | {rule.later} |" for rule in RULES if rule.later]
    return "\n".join([HEAD + rows[0], *rows[1:], LATER + later[0], *later[1:], ""])


if __name__ == "__main__":
    DOCUMENT.write_text(document())
