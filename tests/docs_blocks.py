"""Read the fenced blocks of the documentation, with the marks that say which of them a test runs.

A block with commands (`console`) stands below a mark, an HTML comment on the line before its fence:

    <!-- run: SESSION -->            tests/vm/test_docs.py runs its lines that begin with "$ " and compares their output
    <!-- run: SESSION numbers -->    as before; numbers may differ from those on the page
    <!-- run: SESSION last -->       as the first; after the blocks of later pages
    <!-- file: SESSION NAME -->      the block, of any language, is written to the file NAME in the folder of the session
    <!-- needs: WHAT -->             not run: CI has no registry, cluster, ...; WHAT is one of NEEDS

Blocks of one session run in the order of the page in one shell. A line `...` in the output stands for any number of lines.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.paths import ROOT

DOCS = ROOT / "docs"
NEEDS = {
    "registry": "pulls an image from a registry",
    "cluster": "talks to a Kubernetes cluster",
    "node": "changes the container engine of a node",
    "terminal": "is interactive",
    "clone": "sets up the source tree, or changes it and builds it again",
    "help": "is an example of a command's help",
}
"""What a block may need that a test run has not -> what it does."""
COMMAND_LANGUAGES = ("", "console", "bash", "sh", "shell")
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)(?P=fence)[ ]*$", re.M | re.S)
_MARK = re.compile(r"<!-- (?P<kind>[\w-]+): (?P<words>.+?) -->\Z")


@dataclass(frozen=True)
class Block:
    """One fenced block. `kind` is run, file, needs, or empty without a mark; `words` are what the mark says."""

    page: Path
    line: int
    language: str
    text: str
    kind: str
    words: tuple[str, ...]

    @property
    def where(self) -> str:
        """The place, as editors and pytest write it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def session(self) -> str:
        """The name of the session of a `run` or `file` block."""
        return self.words[0]

    def commands(self) -> list[tuple[str, list[str]]]:
        """Return each command (lines that begin with "> " go on with it) with the lines of its output."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line.startswith("> ") and found and not found[-1][1]:
                found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
            elif found:
                found[-1][1].append(line)
        return found


def pages() -> list[Path]:
    """Return README, CONTRIBUTING and every page below docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page in order."""
    text = page.read_text()
    for match in _FENCE.finditer(text):
        before = text[: match.start()].rstrip("\n").rpartition("\n")[2].strip()
        mark = _MARK.match(before)
        indent = len(match["indent"])
        body = "".join(line[indent:] if not line[:indent].strip() else line for line in match["text"].splitlines(keepends=True))
        line = text.count("\n", 0, match.start()) + 1
        kind, words = (mark["kind"], tuple(mark["words"].split())) if mark else ("", ())
        yield Block(page, line, match["language"], body, kind, words)


def all_blocks() -> Iterator[Block]:
    """Yield the blocks of all pages."""
    for page in pages():
        yield from blocks(page)
