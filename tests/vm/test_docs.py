"""The commands of the documentation, run as a reader would: sessions of tests/docs_blocks.py, in guests of their own."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path

import pytest

from innkeeper import paths
from tests import docs_blocks
from tests.docs_blocks import Block
from tests.needs import needs
from tests.paths import ROOT

pytestmark = [pytest.mark.vm, needs("busybox", "curl", "virtiofsd")]

PORT = "8080"
"""The port that pages publish; a free one takes its place."""
ID = re.compile(r"\b[0-9a-f]{12,64}\b")
DURATION = re.compile(r"\b(?:\d+|About an?|Less than a) (?:second|minute|hour)s?\b")
NUMBER = re.compile(r"\d+(\.\d+)?")
OWN = ("machines", "snapshots")
"""What a session does not share with this user's cache: its containers, and what is saved of them."""
END = "end-of-a-command"


def _sessions() -> dict[str, list[Block]]:
    """Session -> its blocks: pages in the order of mkdocs.yml, blocks in the order of the page."""
    order = (ROOT / "mkdocs.yml").read_text()
    found: dict[str, list[Block]] = {}
    for page in sorted(docs_blocks.pages(), key=lambda page: order.find(str(page.relative_to(ROOT)).removeprefix("docs/"))):
        for block in docs_blocks.blocks(page):
            if block.kind in ("run", "file"):
                found.setdefault(block.session, []).append(block)
    return {session: sorted(listed, key=lambda block: "last" in block.words[1:]) for session, listed in found.items()}


class Reader:
    """One shell in a folder of its own, with `innkeeper` and `python3` on its PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        programs, cache = folder / ".bin", folder / ".cache"
        programs.mkdir()
        cache.mkdir()
        for part in paths.cache_root().iterdir():
            if part.name not in OWN:
                (cache / part.name).symlink_to(part)
        # A hint names the program by the word with which it was called.
        called = 'import sys; from innkeeper.cli import main; sys.argv[0] = "innkeeper"; sys.exit(main())'
        _script(programs / "innkeeper", f"exec '{sys.executable}' -c '{called}' -q \"$@\"")
        _script(programs / "python3", f'exec "{sys.executable}" "$@"')
        environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "INNKEEPER_CACHE": str(cache),
            "STORAGE_DRIVER": "vfs",
        }
        self._shell = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> tuple[str, int]:
        """Run one command; its output, both streams in one, and its status."""
        assert self._shell.stdin is not None and self._shell.stdout is not None
        self._shell.stdin.write(f"{{ {command}\n}} </dev/null\necho {END} $?\n")
        self._shell.stdin.flush()
        output = ""
        for line in self._shell.stdout:
            text, found, status = line.partition(f"{END} ")
            output += text
            if found:
                return output, int(status)
        raise AssertionError(f"the shell ended in: {command}\n{output}")

    def close(self) -> None:
        """Remove the session's containers and end the shell."""
        self.run("for one in $(innkeeper ps -aq); do innkeeper rm -f $one; done")
        assert self._shell.stdin is not None and self._shell.stdout is not None
        self._shell.stdin.close()
        self._shell.stdout.close()
        self._shell.wait()


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def _free_port() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    one = Reader(tmp_path)
    try:
        yield one
    finally:
        one.close()
        shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.parametrize("session", _sessions())
def test_commands_print_what_the_pages_show(reader: Reader, session: str) -> None:
    """All differences are shown at once: a page is corrected in one go."""
    differences = []
    for block in _sessions()[session]:
        if block.kind == "file":
            (reader.folder / block.words[1]).write_text(block.text)
            continue
        numbers = "numbers" in block.words[1:]
        for command, expected in block.commands():
            output, status = reader.run(command.replace(PORT, reader.port))
            got = output.replace(reader.port, PORT).splitlines()
            wanted, found = ([_plain(line, numbers) for line in lines] for lines in (expected, got))
            if status != 0 or not _matches(wanted, found):
                lines = unified_diff(expected, got, "the page", "the command", lineterm="")
                differences.append("\n".join([f"{block.where}: {command}: status {status}", *lines]))
    if differences:
        pytest.fail("\n\n".join(differences), pytrace=False)


def _plain(line: str, numbers: bool) -> str:
    """Return a line without what differs from run to run: ids, the width of columns, and numbers and durations if they may differ."""
    line = ID.sub("ID", line)
    if numbers:
        line = NUMBER.sub("N", DURATION.sub("TIME", line))
    return " ".join(line.split())


def _matches(expected: list[str], got: list[str]) -> bool:
    """Whether the lines are the same; `...` stands for any number of lines."""
    pattern = "".join("(?:.*\n)*" if line == "..." else re.escape(line) + "\n" for line in expected)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in got)) is not None
