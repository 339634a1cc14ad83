"""What a process has freed is gone from its memory after `wipe_free_blocks`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

PROGRAM = """
import sys
from agent.linux.heap import wipe_free_blocks

def use(size, count):
    half = "fReEd-SeCrEt"
    return [(half + "-oF-tHiS-pRoCeSs" + str(number) * size)[:size].encode() for number in range(count)]

for size in (28, 40, 100, 200, 400, 600, 1000, 3000, 20000, 200000):
    secrets = use(size, 50)
    others = use(size, 50)  # one in two stays, as blocks of a pool do
    kept = [bytes(size) for _ in range(50)]
    del secrets, others
if sys.argv[1] == "wipe":
    wipe_free_blocks()
print("done", flush=True)
sys.stdin.read()
"""
SECRET = b"fReEd-SeCrEt-oF-tHiS-pRoCeSs"


@pytest.mark.parametrize("wipe", ["wipe", "no"])
def test_freed_blocks_are_overwritten(wipe: str) -> None:
    argv = [sys.executable, "-c", PROGRAM, wipe]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        assert bool(found(process.pid)) == (wipe == "no")
        process.communicate(b"")


def found(pid: int) -> list[str]:
    """Return the writable mappings in which the secret is, but for the stack's."""
    hits = []
    with open(f"/proc/{pid}/mem", "rb") as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if (match := re.match(r"(\w+)-(\w+) rw", line)) is None:
                continue
            start, end = (int(word, 16) for word in match.groups())
            memory.seek(start)
            if SECRET in memory.read(end - start):
                hits.append(line)
    return hits
