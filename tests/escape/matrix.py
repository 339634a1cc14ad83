"""The text of docs/escapes.md: each rule with the tests that check it. As a program, writes the page."""

import importlib
import inspect
from collections import defaultdict
from pathlib import Path

from tests.escape.rules import RULES

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parents[1] / "docs/escapes.md"
HEAD = """\
# Escapes: rules and tests

This page lists the rules that Innkeeper keeps because of published escapes from container runtimes,
and the tests in `tests/escape` that check each rule. It is a reference for people who judge the
isolation or change the container code. [Security](security.md) explains the layers of protection,
[containers](containers.md) the steps in which a container is made.

For example, rule E02 follows from CVE-2024-21626, in which the working directory of a process led
to the host through a leaked descriptor. The tests start containers whose working directories are
`/proc/self/fd/3` and the like, and look at where the process ends up.

In a test a small static program (`tests/payload`) runs in a container with the default profile,
tries what the escape did, and prints what it observed. It runs as root, as root of a user
namespace, as an ordinary user, and as a process that exec adds to a running container. Each test is
run twice: with an agent that is an ordinary process, and with the agent in a guest. Tests marked
`here` run only with the first, those marked `inside` only with the second. After every test the
agent's descriptors, mounts, children, cgroups and files must be the same as before, and nothing
outside the container's root may have changed.

The table is written by `python -m tests.escape.matrix`, and a unit test compares the page with it.

| rule | from | what must hold | checked by |
|---|---|---|---|
"""


def rule_to_tests() -> dict[str, list[str]]:
    """Return the tests that are marked with each rule, as `module: name`."""
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
    """Return the text of `docs/escapes.md`."""
    held = rule_to_tests()
    rows = [f"| {rule.id} | {rule.origin} | {rule.rule} | {'; '.join(sorted(held[rule.id]))} |" for rule in RULES]
    return HEAD + "\n".join([*rows, ""])


if __name__ == "__main__":
    DOCUMENT.write_text(document())
