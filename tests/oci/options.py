"""The table of options in docs/oci.md, and the options that runc and crun list in their help."""

import re
import subprocess
from dataclasses import dataclass

from agent.oci import command_table, main
from agent.oci.arguments import Option
from tests.paths import ROOT

DOCS = ROOT / "docs/oci.md"
HEAD = "| command | option | runc | crun | ours | why different | test |"
GLOBAL = "(before the command)"
OF_THE_PARSERS = frozenset(("help", "usage", "version"))
"""What every option parser adds."""


@dataclass(frozen=True, slots=True)
class Row:
    """One option. runc and crun: yes, no, or the version that has it first; ours: yes, refused or no; test: FILE::FUNCTION."""

    verb: str
    option: str
    runc: str
    crun: str
    ours: str
    why: str
    test: str


def rows() -> list[Row]:
    """The table."""
    lines = DOCS.read_text().split(HEAD, 1)[1].splitlines()[2:]
    end = next((index for index, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return [Row(*[cell.strip().strip("`").removeprefix("--") for cell in line.split("|")[1:-1]]) for line in lines[:end]]


def ours(verb: str) -> tuple[Option, ...]:
    """The options of one of our commands; none of one that is refused as a whole."""
    if verb == GLOBAL:
        return main.OPTIONS
    return () if verb in command_table.REFUSED else command_table.find(verb).options


def theirs(program: str, verb: str) -> set[str]:
    """The long options of a runtime's verb, by its help; none where it has no such verb."""
    words = [program, "--help"] if verb == GLOBAL else [program, verb, "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    name = program.rsplit("/", 1)[-1]
    known = [f"{name} "] if verb == GLOBAL else [f"{name} {verb}", f"Usage: {verb} "]
    if done.returncode or not any(words in done.stdout for words in known):
        return set()
    return set(re.findall(r"^ +(?:-\w, *)?--([a-z0-9-]+)", done.stdout, re.MULTILINE)) - OF_THE_PARSERS
